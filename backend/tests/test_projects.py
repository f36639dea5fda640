"""Projects: from their creation to the archive."""

import pytest
from httpx import AsyncClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Task, TaskStatus, User
from tests.factories import create_project, create_task, create_team


class TestCreate:
    async def test_answers_with_the_project(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, members=[regular_user])

        response = await user_client.post(
            f"/api/teams/{team.id}/projects", json={"key": "OPS", "name": "Operations"}
        )

        body = response.json()
        assert response.status_code == 201
        assert (body["key"], body["team_id"], body["archived_at"]) == ("OPS", team.id, None)

    async def test_refuses_a_key_that_the_team_uses(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, members=[regular_user])
        await create_project(db, team=team, key="OPS")

        response = await user_client.post(
            f"/api/teams/{team.id}/projects", json={"key": "OPS", "name": "Again"}
        )

        assert response.status_code == 409
        assert response.json() == {"detail": "the team already has a project with this key"}

    async def test_takes_a_key_that_another_team_uses(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        team = await create_team(db, members=[regular_user])
        await create_project(db, key="OPS")

        response = await user_client.post(
            f"/api/teams/{team.id}/projects", json={"key": "OPS", "name": "Operations"}
        )

        assert response.status_code == 201

    @pytest.mark.parametrize("key", ["O", "ops", "1OPS", "OPS-1", "TOOLONGKEYS"])
    async def test_refuses_a_malformed_key(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User, key: str
    ) -> None:
        team = await create_team(db, members=[regular_user])

        response = await user_client.post(
            f"/api/teams/{team.id}/projects", json={"key": key, "name": "Operations"}
        )

        assert response.status_code == 422

    async def test_needs_membership(self, user_client: AsyncClient, db: AsyncSession) -> None:
        other = await create_team(db)

        response = await user_client.post(
            f"/api/teams/{other.id}/projects", json={"key": "OPS", "name": "Operations"}
        )

        assert response.status_code == 404


class TestRead:
    async def test_lists_the_projects_of_all_ones_teams(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        first = await create_project(db, member=regular_user)
        second = await create_project(db, member=regular_user)
        await create_project(db)

        response = await user_client.get("/api/projects")

        assert [row["id"] for row in response.json()["items"]] == [first.id, second.id]

    async def test_lists_the_projects_of_one_team(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        await create_project(db, member=regular_user)

        response = await user_client.get(f"/api/teams/{project.team_id}/projects")

        assert [row["id"] for row in response.json()["items"]] == [project.id]

    async def test_finds_only_the_archived_when_asked(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        await create_project(db, member=regular_user)
        await user_client.post(f"/api/projects/{project.id}/archive")

        response = await user_client.get("/api/projects?archived=true")

        assert [row["id"] for row in response.json()["items"]] == [project.id]

    async def test_hides_a_project_from_outsiders(
        self, user_client: AsyncClient, db: AsyncSession
    ) -> None:
        project = await create_project(db)

        response = await user_client.get(f"/api/projects/{project.id}")

        assert response.status_code == 404
        assert response.json() == {"detail": "project not found"}


class TestChange:
    async def test_renames(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user, key="OPS")

        response = await user_client.patch(f"/api/projects/{project.id}", json={"name": "Runbook"})

        await db.refresh(project)
        assert response.status_code == 200
        assert (project.name, project.key) == ("Runbook", "OPS")

    async def test_refuses_a_field_that_does_not_exist(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)

        response = await user_client.patch(f"/api/projects/{project.id}", json={"nmae": "Runbook"})

        assert response.status_code == 422
        assert response.json()["detail"][0]["type"] == "extra_forbidden"


class TestArchive:
    async def test_freezes_the_project(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        await user_client.post(f"/api/projects/{project.id}/archive")

        response = await user_client.post(
            f"/api/projects/{project.id}/tasks", json={"title": "Late"}
        )

        assert response.status_code == 409
        assert response.json() == {"detail": "the project is archived"}

    async def test_says_since_when(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)

        response = await user_client.post(f"/api/projects/{project.id}/archive")

        assert response.status_code == 200
        assert isinstance(response.json()["archived_at"], str)

    async def test_done_twice_keeps_the_first_time(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        first = await user_client.post(f"/api/projects/{project.id}/archive")

        second = await user_client.post(f"/api/projects/{project.id}/archive")

        assert second.json()["archived_at"] == first.json()["archived_at"]

    async def test_undone_thaws_the_project(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        await user_client.post(f"/api/projects/{project.id}/archive")
        await user_client.post(f"/api/projects/{project.id}/unarchive")

        response = await user_client.post(
            f"/api/projects/{project.id}/tasks", json={"title": "Late"}
        )

        assert response.status_code == 201

    async def test_leaves_the_tasks_readable(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        task = await create_task(db, project=project)
        await user_client.post(f"/api/projects/{project.id}/archive")

        response = await user_client.get(f"/api/tasks/{task.id}")

        assert response.status_code == 200


class TestDelete:
    async def test_takes_its_finished_tasks_along(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        await create_task(db, project=project, status=TaskStatus.DONE)

        response = await user_client.delete(f"/api/projects/{project.id}")

        assert response.status_code == 204
        assert await db.scalar(select(func.count()).select_from(Task)) == 0

    @pytest.mark.parametrize("status", [TaskStatus.TODO, TaskStatus.IN_PROGRESS])
    async def test_waits_for_unfinished_tasks(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User, status: TaskStatus
    ) -> None:
        project = await create_project(db, member=regular_user)
        await create_task(db, project=project, status=status)

        response = await user_client.delete(f"/api/projects/{project.id}")

        assert response.status_code == 409
        assert response.json() == {"detail": "the project has unfinished tasks"}
