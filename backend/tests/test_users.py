"""Administration of accounts."""

import pytest
from httpx import AsyncClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Comment, User
from tests.factories import PASSWORD, ClientFactory, create_comment, create_team, create_user


class TestList:
    async def test_shows_all_accounts_oldest_first(
        self, admin_client: AsyncClient, db: AsyncSession, admin_user: User
    ) -> None:
        second = await create_user(db)
        third = await create_user(db, is_active=False)

        response = await admin_client.get("/api/users")

        emails = [user["email"] for user in response.json()["items"]]
        assert emails == [admin_user.email, second.email, third.email]

    async def test_comes_in_pages(
        self, admin_client: AsyncClient, db: AsyncSession, admin_user: User
    ) -> None:
        second, third = await create_user(db), await create_user(db)

        first_page = (await admin_client.get("/api/users?limit=2")).json()
        last_page = (
            await admin_client.get(f"/api/users?limit=2&cursor={first_page['next_cursor']}")
        ).json()

        assert [user["id"] for user in first_page["items"]] == [admin_user.id, second.id]
        assert [user["id"] for user in last_page["items"]] == [third.id]
        assert last_page["next_cursor"] is None

    @pytest.mark.parametrize("query", ["limit=0", "limit=101"])
    async def test_refuses_a_page_that_cannot_be(
        self, admin_client: AsyncClient, query: str
    ) -> None:
        response = await admin_client.get(f"/api/users?{query}")

        assert response.status_code == 422


class TestGet:
    async def test_shows_one_account(self, admin_client: AsyncClient, db: AsyncSession) -> None:
        user = await create_user(db, role="viewer")

        response = await admin_client.get(f"/api/users/{user.id}")

        assert response.status_code == 200
        assert (response.json()["email"], response.json()["role"]) == (user.email, "viewer")

    async def test_does_not_find_what_is_not_there(self, admin_client: AsyncClient) -> None:
        response = await admin_client.get("/api/users/2147483647")

        assert response.status_code == 404
        assert response.json() == {"detail": "user not found"}


class TestUpdate:
    async def test_gives_another_role(
        self, admin_client: AsyncClient, client_factory: ClientFactory, regular_user: User
    ) -> None:
        response = await admin_client.patch(
            f"/api/users/{regular_user.id}", json={"role": "manager"}
        )

        me = await client_factory(regular_user).get("/api/auth/me")
        assert response.status_code == 200
        assert me.json()["role"] == "manager"

    async def test_shuts_an_account_out_at_once(
        self, admin_client: AsyncClient, client_factory: ClientFactory, regular_user: User
    ) -> None:
        await admin_client.patch(f"/api/users/{regular_user.id}", json={"is_active": False})

        response = await client_factory(regular_user).get("/api/auth/me")

        assert response.status_code == 401

    async def test_revokes_the_refresh_tokens_of_who_is_shut_out(
        self, admin_client: AsyncClient, client: AsyncClient, regular_user: User
    ) -> None:
        form = {"username": regular_user.email, "password": PASSWORD}
        token = (await client.post("/api/auth/login", data=form)).json()["refresh_token"]
        await admin_client.patch(f"/api/users/{regular_user.id}", json={"is_active": False})
        await admin_client.patch(f"/api/users/{regular_user.id}", json={"is_active": True})

        response = await client.post("/api/auth/refresh", json={"refresh_token": token})

        assert response.status_code == 401

    async def test_refuses_an_unknown_role(
        self, admin_client: AsyncClient, regular_user: User
    ) -> None:
        response = await admin_client.patch(
            f"/api/users/{regular_user.id}", json={"role": "emperor"}
        )

        assert response.status_code == 422

    async def test_keeps_administrators_from_demoting_themselves(
        self, admin_client: AsyncClient, admin_user: User
    ) -> None:
        response = await admin_client.patch(f"/api/users/{admin_user.id}", json={"role": "viewer"})

        assert response.status_code == 409
        assert response.json() == {"detail": "you cannot change your own role or access"}


class TestDelete:
    async def test_removes_the_account(
        self, admin_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        response = await admin_client.delete(f"/api/users/{regular_user.id}")

        assert response.status_code == 204
        left = select(func.count()).where(User.email == regular_user.email)
        assert await db.scalar(left) == 0

    async def test_keeps_what_the_user_wrote(
        self, admin_client: AsyncClient, db: AsyncSession
    ) -> None:
        author = await create_user(db)
        comment = await create_comment(db, author=author)

        await admin_client.delete(f"/api/users/{author.id}")

        await db.refresh(comment)
        assert comment.author_id is None
        assert await db.scalar(select(func.count()).select_from(Comment)) == 1

    async def test_refuses_oneself(self, admin_client: AsyncClient, admin_user: User) -> None:
        response = await admin_client.delete(f"/api/users/{admin_user.id}")

        assert response.status_code == 409
        assert response.json() == {"detail": "you cannot delete yourself"}

    async def test_refuses_the_last_owner_of_a_team(
        self, admin_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        await create_team(db, owner=regular_user)

        response = await admin_client.delete(f"/api/users/{regular_user.id}")

        assert response.status_code == 409
        assert response.json() == {"detail": "the user is the last owner of a team"}
