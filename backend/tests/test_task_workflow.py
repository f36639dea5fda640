"""Tasks that several people change: versions, states, order, bulk import."""

import asyncio

import pytest
from httpx import AsyncClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.models import Task, TaskStatus, User
from tests.factories import create_project, create_task, wait_for_a_blocked_query


async def titles_in_order(db: AsyncSession) -> list[str]:
    """Return the titles of all tasks by position."""
    return list(await db.scalars(select(Task.title).order_by(Task.position)))


class TestVersion:
    async def test_a_change_to_an_old_version_is_refused(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        task = await create_task(db, project=project)
        await user_client.patch(f"/api/tasks/{task.id}", json={"version": 1, "title": "First"})

        response = await user_client.patch(
            f"/api/tasks/{task.id}", json={"version": 1, "title": "Late"}
        )

        assert response.status_code == 409
        assert response.json() == {"detail": "the record has changed since it was read"}

    async def test_what_was_refused_is_not_written(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        task = await create_task(db, project=project)
        await user_client.patch(f"/api/tasks/{task.id}", json={"version": 1, "title": "First"})

        await user_client.patch(f"/api/tasks/{task.id}", json={"version": 1, "title": "Late"})

        assert await titles_in_order(db) == ["First"]

    @pytest.mark.fresh_database
    async def test_a_change_that_another_overtakes_is_refused(
        self,
        user_client: AsyncClient,
        db: AsyncSession,
        regular_user: User,
        get_db_session: async_sessionmaker[AsyncSession],
    ) -> None:
        project = await create_project(db, member=regular_user)
        task = await create_task(db, project=project)
        task.title = "First"
        await db.flush()

        change = {"version": 1, "title": "Late"}
        request = asyncio.create_task(user_client.patch(f"/api/tasks/{task.id}", json=change))
        async with get_db_session() as other:
            await wait_for_a_blocked_query(other)
        await db.commit()

        response = await request
        assert response.status_code == 409
        assert response.json() == {"detail": "the record has changed since it was read"}

    async def test_a_change_has_to_say_what_it_has_read(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        task = await create_task(db, project=project)

        response = await user_client.patch(f"/api/tasks/{task.id}", json={"title": "Blind"})

        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["body", "version"]


class TestStatus:
    @pytest.mark.parametrize(
        ("before", "after"),
        [("todo", "in_progress"), ("in_progress", "done"), ("cancelled", "todo")],
    )
    async def test_takes_a_step(
        self,
        user_client: AsyncClient,
        db: AsyncSession,
        regular_user: User,
        before: str,
        after: str,
    ) -> None:
        project = await create_project(db, member=regular_user)
        task = await create_task(db, project=project, status=TaskStatus(before))

        response = await user_client.post(f"/api/tasks/{task.id}/status", json={"status": after})

        assert response.status_code == 200
        assert response.json()["status"] == after

    @pytest.mark.parametrize(("before", "after"), [("todo", "done"), ("cancelled", "done")])
    async def test_does_not_skip_one(
        self,
        user_client: AsyncClient,
        db: AsyncSession,
        regular_user: User,
        before: str,
        after: str,
    ) -> None:
        project = await create_project(db, member=regular_user)
        task = await create_task(db, project=project, status=TaskStatus(before))

        response = await user_client.post(f"/api/tasks/{task.id}/status", json={"status": after})

        assert response.status_code == 409
        assert response.json() == {"detail": f"a task cannot go from {before} to {after}"}

    async def test_is_counted(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        await create_task(db, project=project)
        await create_task(db, project=project, status=TaskStatus.DONE)
        await create_task(db, project=project, status=TaskStatus.DONE)

        response = await user_client.get(f"/api/projects/{project.id}/tasks/stats")

        assert response.json() == {
            "total": 3,
            "by_status": {"todo": 1, "in_progress": 0, "done": 2, "cancelled": 0},
        }


class TestMove:
    @pytest.mark.parametrize(
        ("position", "order"),
        [
            (1, ["c", "a", "b", "d"]),
            (4, ["a", "b", "d", "c"]),
            (99, ["a", "b", "d", "c"]),
        ],
    )
    async def test_puts_the_task_there_and_shifts_the_others(
        self,
        user_client: AsyncClient,
        db: AsyncSession,
        regular_user: User,
        position: int,
        order: list[str],
    ) -> None:
        project = await create_project(db, member=regular_user)
        tasks = {title: await create_task(db, project=project, title=title) for title in "abcd"}

        response = await user_client.post(
            f"/api/tasks/{tasks['c'].id}/move", json={"position": position}
        )

        assert response.status_code == 200
        assert await titles_in_order(db) == order

    async def test_leaves_other_projects_alone(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        other = await create_task(db)
        await create_task(db, project=project)
        second = await create_task(db, project=project)

        await user_client.post(f"/api/tasks/{second.id}/move", json={"position": 1})

        await db.refresh(other)
        assert other.position == 1


class TestImport:
    async def test_keeps_the_good_rows_and_explains_the_bad_ones(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        await create_task(db, project=project, title="old", external_ref="A")
        rows = [
            {"title": "new"},
            {"title": "twin", "external_ref": "A"},
            {"title": "late", "start_date": "2026-02-01", "due_date": "2026-01-01"},
            {"title": "last"},
        ]

        response = await user_client.post(
            f"/api/projects/{project.id}/tasks/import", json={"rows": rows}
        )

        body = response.json()
        assert [row["row"] for row in body["created"]] == [0, 3]
        assert body["failed"] == [
            {"row": 1, "reason": "the project already has this external_ref"},
            {"row": 2, "reason": "due_date must not be before start_date"},
        ]
        assert await titles_in_order(db) == ["old", "new", "last"]

    async def test_refuses_all_when_one_row_is_invalid(
        self, user_client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        project = await create_project(db, member=regular_user)
        rows = [{"title": "fine"}, {"title": ""}]

        response = await user_client.post(
            f"/api/projects/{project.id}/tasks/import", json={"rows": rows}
        )

        assert response.status_code == 422
        assert await db.scalar(select(func.count()).select_from(Task)) == 0
