"""Comments, and the notifications that they cause after the response."""

import pytest
from httpx import AsyncClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Comment, Job, Task, Team, User
from tests.factories import (
    ClientFactory,
    add_member,
    create_comment,
    create_project,
    create_task,
    create_team,
    create_user,
)


@pytest.fixture
def mine(client_factory: ClientFactory, regular_user: User) -> AsyncClient:
    """The regular user's client."""
    return client_factory(regular_user)


@pytest.fixture
async def task(db: AsyncSession, regular_user: User) -> Task:
    """A task of the regular user's team."""
    team = await create_team(db, owner=regular_user)
    return await create_task(db, project=await create_project(db, team=team))


class TestWrite:
    async def test_answers_with_the_comment(
        self, mine: AsyncClient, task: Task, regular_user: User
    ) -> None:
        response = await mine.post(f"/api/tasks/{task.id}/comments", json={"body": " Done. "})

        body = response.json()
        assert response.status_code == 201
        assert (body["body"], body["author_id"], body["edited_at"]) == (
            "Done.",
            regular_user.id,
            None,
        )

    @pytest.mark.parametrize("body", ["", "   ", "x" * 10_001])
    async def test_refuses_a_body_that_says_nothing_or_too_much(
        self, mine: AsyncClient, task: Task, body: str
    ) -> None:
        response = await mine.post(f"/api/tasks/{task.id}/comments", json={"body": body})

        assert response.status_code == 422

    async def test_is_closed_to_outsiders(self, mine: AsyncClient, db: AsyncSession) -> None:
        foreign = await create_task(db)

        response = await mine.post(f"/api/tasks/{foreign.id}/comments", json={"body": "Hello"})

        assert response.status_code == 404


class TestMention:
    async def test_queues_a_notification(
        self, mine: AsyncClient, db: AsyncSession, task: Task
    ) -> None:
        team_id = task.project.team_id
        mentioned = await create_user(db, email="grace@example.com")
        await add_member_by_id(db, team_id, mentioned)

        response = await mine.post(
            f"/api/tasks/{task.id}/comments", json={"body": "See this, @Grace@example.com"}
        )

        job = (await db.scalars(select(Job))).one()
        assert job.kind == "notify"
        assert job.payload == {"comment_id": response.json()["id"], "user_id": mentioned.id}

    async def test_of_oneself_queues_nothing(
        self, mine: AsyncClient, db: AsyncSession, task: Task, regular_user: User
    ) -> None:
        await mine.post(
            f"/api/tasks/{task.id}/comments", json={"body": f"Me: @{regular_user.email}"}
        )

        assert await db.scalar(select(func.count()).select_from(Job)) == 0

    async def test_of_an_outsider_queues_nothing(
        self, mine: AsyncClient, db: AsyncSession, task: Task
    ) -> None:
        outsider = await create_user(db)

        await mine.post(f"/api/tasks/{task.id}/comments", json={"body": f"@{outsider.email}"})

        assert await db.scalar(select(func.count()).select_from(Job)) == 0

    async def test_twice_queues_one_notification(
        self, mine: AsyncClient, db: AsyncSession, task: Task
    ) -> None:
        mentioned = await create_user(db)
        await add_member_by_id(db, task.project.team_id, mentioned)
        body = f"@{mentioned.email} and again @{mentioned.email}"

        await mine.post(f"/api/tasks/{task.id}/comments", json={"body": body})

        assert await db.scalar(select(func.count()).select_from(Job)) == 1


class TestList:
    async def test_shows_the_oldest_first(
        self, mine: AsyncClient, db: AsyncSession, task: Task
    ) -> None:
        for body in ("one", "two", "three"):
            await create_comment(db, task=task, body=body)

        response = await mine.get(f"/api/tasks/{task.id}/comments")

        assert [row["body"] for row in response.json()["items"]] == ["one", "two", "three"]

    async def test_comes_in_pages(self, mine: AsyncClient, db: AsyncSession, task: Task) -> None:
        for body in ("one", "two", "three"):
            await create_comment(db, task=task, body=body)

        first = (await mine.get(f"/api/tasks/{task.id}/comments?limit=2")).json()
        path = f"/api/tasks/{task.id}/comments?limit=2&cursor={first['next_cursor']}"
        last = (await mine.get(path)).json()

        assert [row["body"] for row in first["items"] + last["items"]] == ["one", "two", "three"]
        assert last["next_cursor"] is None


class TestEdit:
    async def test_is_the_authors(
        self, mine: AsyncClient, db: AsyncSession, task: Task, regular_user: User
    ) -> None:
        comment = await create_comment(db, task=task, author=regular_user)

        response = await mine.patch(f"/api/comments/{comment.id}", json={"body": "Better."})

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
        self, mine: AsyncClient, db: AsyncSession, task: Task, regular_user: User
    ) -> None:
        comment = await create_comment(db, task=task, author=regular_user)

        response = await mine.delete(f"/api/comments/{comment.id}")

        assert response.status_code == 204
        assert await db.scalar(select(func.count()).select_from(Comment)) == 0

    async def test_is_a_moderators(
        self, client_factory: ClientFactory, db: AsyncSession, admin_user: User
    ) -> None:
        comment = await create_comment(db)

        response = await client_factory(admin_user).delete(f"/api/comments/{comment.id}")

        assert response.status_code == 204

    async def test_is_not_another_members(
        self, mine: AsyncClient, db: AsyncSession, task: Task
    ) -> None:
        comment = await create_comment(db, task=task)

        response = await mine.delete(f"/api/comments/{comment.id}")

        assert response.status_code == 403
        assert response.json() == {"detail": "only the author or a moderator may delete a comment"}


async def add_member_by_id(db: AsyncSession, team_id: int, user: User) -> None:
    """Add a user to the team with this id."""
    team = await db.get_one(Team, team_id)
    await add_member(db, team=team, user=user)
