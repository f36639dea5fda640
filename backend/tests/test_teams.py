"""Teams and who is in them."""

import pytest
from httpx import AsyncClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Team, TeamMember, TeamRole, User
from tests.factories import ClientFactory, add_member, create_project, create_team, create_user


class TestCreate:
    async def test_makes_the_creator_an_owner(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        response = await user_client.post("/api/teams", json={"name": "Night", "slug": "night"})

        member = (await db.scalars(select(TeamMember))).one()
        assert response.status_code == 201
        assert (member.user_id, member.role) == (regular_user.id, TeamRole.OWNER)

    async def test_answers_with_the_team(self, user_client: AsyncClient) -> None:
        response = await user_client.post("/api/teams", json={"name": "  Night ", "slug": "night"})

        assert (response.json()["name"], response.json()["slug"]) == ("Night", "night")

    async def test_refuses_a_slug_that_is_taken(
        self, user_client: AsyncClient, db: AsyncSession
    ) -> None:
        await create_team(db, slug="night")

        response = await user_client.post("/api/teams", json={"name": "Other", "slug": "night"})

        assert response.status_code == 409
        assert response.json() == {"detail": "this slug is already taken"}

    async def test_leaves_nothing_behind_when_it_is_refused(
        self, user_client: AsyncClient, db: AsyncSession
    ) -> None:
        await create_team(db, slug="night")

        await user_client.post("/api/teams", json={"name": "Other", "slug": "night"})

        assert await db.scalar(select(func.count()).select_from(Team)) == 1

    @pytest.mark.parametrize("slug", ["", "Upper", "two--dashes", "x" * 51])
    async def test_refuses_a_malformed_slug(self, user_client: AsyncClient, slug: str) -> None:
        response = await user_client.post("/api/teams", json={"name": "Night", "slug": slug})

        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["body", "slug"]


class TestRead:
    async def test_lists_only_ones_own_teams(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        own = await create_team(db, members=[regular_user])
        await create_team(db)

        response = await user_client.get("/api/teams")

        assert [team["id"] for team in response.json()["items"]] == [own.id]

    async def test_hides_a_team_from_outsiders(
        self, user_client: AsyncClient, db: AsyncSession
    ) -> None:
        team = await create_team(db)

        response = await user_client.get(f"/api/teams/{team.id}")

        assert response.status_code == 404
        assert response.json() == {"detail": "team not found"}

    async def test_shows_the_members_with_their_roles(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, owner=regular_user)
        other = (await add_member(db, team_id=team.id)).user

        response = await user_client.get(f"/api/teams/{team.id}/members")

        assert [(row["email"], row["role"]) for row in response.json()["items"]] == [
            (regular_user.email, "owner"),
            (other.email, "member"),
        ]

    @pytest.mark.parametrize("team_id", ["0", "2147483648", "night"])
    async def test_refuses_an_id_that_cannot_be(
        self, user_client: AsyncClient, team_id: str
    ) -> None:
        response = await user_client.get(f"/api/teams/{team_id}")

        assert response.status_code == 422


class TestChange:
    async def test_an_owner_renames_the_team(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, owner=regular_user)

        response = await user_client.patch(f"/api/teams/{team.id}", json={"name": "Day"})

        await db.refresh(team)
        assert response.status_code == 200
        assert team.name == "Day"

    async def test_a_member_does_not(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, members=[regular_user], name="Night")

        response = await user_client.patch(f"/api/teams/{team.id}", json={"name": "Day"})

        await db.refresh(team)
        assert response.status_code == 403
        assert team.name == "Night"

    async def test_a_slug_cannot_be_taken_over(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        await create_team(db, slug="day")
        team = await create_team(db, owner=regular_user, slug="night")

        response = await user_client.patch(f"/api/teams/{team.id}", json={"slug": "day"})

        assert response.status_code == 409


class TestDelete:
    async def test_an_owner_deletes_an_empty_team(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, owner=regular_user)

        response = await user_client.delete(f"/api/teams/{team.id}")

        assert response.status_code == 204
        assert await db.scalar(select(func.count()).select_from(TeamMember)) == 0

    async def test_a_member_does_not(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, members=[regular_user])

        response = await user_client.delete(f"/api/teams/{team.id}")

        assert response.status_code == 403

    async def test_a_team_with_projects_stays(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, owner=regular_user)
        await create_project(db, team=team)

        response = await user_client.delete(f"/api/teams/{team.id}")

        assert response.status_code == 409
        assert response.json() == {"detail": "the team still has projects"}


class TestMembers:
    async def test_an_owner_adds_somebody(
        self,
        user_client: AsyncClient,
        client_factory: ClientFactory,
        db: AsyncSession,
        regular_user: User,
    ) -> None:
        team = await create_team(db, owner=regular_user)
        newcomer = await create_user(db)

        response = await user_client.post(
            f"/api/teams/{team.id}/members", json={"user_id": newcomer.id}
        )

        seen = await client_factory(newcomer).get("/api/teams")
        assert response.status_code == 201
        assert [row["id"] for row in seen.json()["items"]] == [team.id]

    async def test_nobody_is_added_twice(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, owner=regular_user)
        member = await add_member(db, team_id=team.id)

        response = await user_client.post(
            f"/api/teams/{team.id}/members", json={"user_id": member.user_id}
        )

        assert response.status_code == 409
        assert response.json() == {"detail": "this user is already a member of the team"}

    async def test_nobody_is_added_who_does_not_exist(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, owner=regular_user)

        response = await user_client.post(
            f"/api/teams/{team.id}/members", json={"user_id": 2147483647}
        )

        assert response.status_code == 422
        assert response.json() == {"detail": "no such user"}

    async def test_a_member_adds_nobody(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, members=[regular_user])
        newcomer = await create_user(db)

        response = await user_client.post(
            f"/api/teams/{team.id}/members", json={"user_id": newcomer.id}
        )

        assert response.status_code == 403

    async def test_an_owner_promotes_a_member(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, owner=regular_user)
        member = await add_member(db, team_id=team.id)

        response = await user_client.patch(
            f"/api/teams/{team.id}/members/{member.user_id}", json={"role": "owner"}
        )

        await db.refresh(member)
        assert response.status_code == 200
        assert member.role is TeamRole.OWNER

    async def test_the_last_owner_stays_an_owner(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, owner=regular_user)

        response = await user_client.patch(
            f"/api/teams/{team.id}/members/{regular_user.id}", json={"role": "member"}
        )

        assert response.status_code == 409
        assert response.json() == {"detail": "the last owner cannot leave the team"}

    async def test_the_last_owner_cannot_leave(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, owner=regular_user)

        response = await user_client.delete(f"/api/teams/{team.id}/members/{regular_user.id}")

        assert response.status_code == 409

    async def test_one_of_two_owners_can_leave(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, owner=regular_user)
        await add_member(db, team_id=team.id, role=TeamRole.OWNER)

        response = await user_client.delete(f"/api/teams/{team.id}/members/{regular_user.id}")

        assert response.status_code == 204

    async def test_a_member_can_leave(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, members=[regular_user])

        response = await user_client.delete(f"/api/teams/{team.id}/members/{regular_user.id}")

        assert response.status_code == 204
        assert (await user_client.get("/api/teams")).json()["items"] == []

    async def test_a_member_cannot_remove_another(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        other = await create_user(db)
        team = await create_team(db, members=[regular_user, other])

        response = await user_client.delete(f"/api/teams/{team.id}/members/{other.id}")

        assert response.status_code == 403
