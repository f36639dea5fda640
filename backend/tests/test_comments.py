"""Comments, and the notifications that they cause after the response."""

import pytest
from httpx import AsyncClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Comment, Job, Task, User
from tests.factories import (
    ClientFactory,
    add_member,
    create_comment,
    create_project,
    create_task,
    create_user,
)


@pytest.fixture
async def task(db: AsyncSession, regular_user: User) -> Task:
    """A task of the regular user's team."""
    return await create_task(db, project=await create_project(db, member=regular_user))


class TestWrite:
    async def test_answers_with_the_comment(
        self, user_client: AsyncClient, task: Task, regular_user: User
    ) -> None:
        response = await user_client.post(
            f"/api/tasks/{task.id}/comments", json={"body": " Done. "}
        )

        body = response.json()
        assert response.status_code == 201
        assert (body["body"], body["author_id"], body["edited_at"]) == (
            "Done.",
            regular_user.id,
            None,
        )

    @pytest.mark.parametrize("body", ["   ", "x" * 10_001])
    async def test_refuses_a_body_that_says_nothing_or_too_much(
        self, user_client: AsyncClient, task: Task, body: str
    ) -> None:
        response = await user_client.post(f"/api/tasks/{task.id}/comments", json={"body": body})

        assert response.status_code == 422

    async def test_is_closed_to_outsiders(self, user_client: AsyncClient, db: AsyncSession) -> None:
        foreign = await create_task(db)

        response = await user_client.post(
            f"/api/tasks/{foreign.id}/comments", json={"body": "Hello"}
        )

        assert response.status_code == 404


class TestMention:
    async def test_queues_a_notification(
        self, user_client: AsyncClient, db: AsyncSession, task: Task
    ) -> None:
        mentioned = await create_user(db, email="grace@example.com")
        await add_member(db, team_id=task.project.team_id, user=mentioned)

        response = await user_client.post(
            f"/api/tasks/{task.id}/comments", json={"body": "See this, @Grace@example.com"}
        )

        job = (await db.scalars(select(Job))).one()
        assert job.kind == "notify"
        assert job.payload == {"comment_id": response.json()["id"], "user_id": mentioned.id}

    async def test_of_oneself_queues_nothing(
        self, user_client: AsyncClient, db: AsyncSession, task: Task, regular_user: User
    ) -> None:
        await user_client.post(
            f"/api/tasks/{task.id}/comments", json={"body": f"Me: @{regular_user.email}"}
        )

        assert await db.scalar(select(func.count()).select_from(Job)) == 0

    async def test_of_an_outsider_queues_nothing(
        self, user_client: AsyncClient, db: AsyncSession, task: Task
    ) -> None:
        outsider = await create_user(db)

        await user_client.post(
            f"/api/tasks/{task.id}/comments", json={"body": f"@{outsider.email}"}
        )

        assert await db.scalar(select(func.count()).select_from(Job)) == 0

    async def test_twice_queues_one_notification(
        self, user_client: AsyncClient, db: AsyncSession, task: Task
    ) -> None:
        mentioned = (await add_member(db, team_id=task.project.team_id)).user
        body = f"@{mentioned.email} and again @{mentioned.email}"

        await user_client.post(f"/api/tasks/{task.id}/comments", json={"body": body})

        assert await db.scalar(select(func.count()).select_from(Job)) == 1


class TestList:
    async def test_shows_the_oldest_first(
        self, user_client: AsyncClient, db: AsyncSession, task: Task
    ) -> None:
        for body in ("one", "two", "three"):
            await create_comment(db, task=task, body=body)

        response = await user_client.get(f"/api/tasks/{task.id}/comments")

        assert [row["body"] for row in response.json()["items"]] == ["one", "two", "three"]


class TestEdit:
    async def test_is_the_authors(
        self, user_client: AsyncClient, db: AsyncSession, task: Task, regular_user: User
    ) -> None:
        comment = await create_comment(db, task=task, author=regular_user)

        response = await user_client.patch(f"/api/comments/{comment.id}", json={"body": "Better."})

        await db.refresh(comment)
        assert response.status_code == 200
        assert (comment.body, comment.edited_at is None) == ("Better.", False)

    async def test_is_nobody_elses_not_even_a_moderators(
        self, client_factory: ClientFactory, db: AsyncSession, admin_user: User
    ) -> None:
        comment = await create_comment(db, body="Mine.")

        response = await client_factory(admin_user).patch(
            f"/api/comments/{comment.id}", json={"body": "Yours."}
        )

        assert response.status_code == 403
        assert response.json() == {"detail": "only the author may edit a comment"}


class TestDelete:
    async def test_is_the_authors(
        self, user_client: AsyncClient, db: AsyncSession, task: Task, regular_user: User
    ) -> None:
        comment = await create_comment(db, task=task, author=regular_user)

        response = await user_client.delete(f"/api/comments/{comment.id}")

        assert response.status_code == 204
        assert await db.scalar(select(func.count()).select_from(Comment)) == 0

    async def test_is_a_moderators(
        self, client_factory: ClientFactory, db: AsyncSession, admin_user: User
    ) -> None:
        comment = await create_comment(db)

        response = await client_factory(admin_user).delete(f"/api/comments/{comment.id}")

        assert response.status_code == 204

    async def test_is_not_another_members(
        self, user_client: AsyncClient, db: AsyncSession, task: Task
    ) -> None:
        comment = await create_comment(db, task=task)

        response = await user_client.delete(f"/api/comments/{comment.id}")

        assert response.status_code == 403
        assert response.json() == {"detail": "only the author or a moderator may delete a comment"}
