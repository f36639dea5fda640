"""Labels, and the tasks that carry them."""

import pytest
from httpx import AsyncClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Project, User, task_labels
from tests.factories import (
    ClientFactory,
    create_label,
    create_project,
    create_task,
    create_team,
)


@pytest.fixture
def mine(client_factory: ClientFactory, regular_user: User) -> AsyncClient:
    """The regular user's client."""
    return client_factory(regular_user)


@pytest.fixture
async def project(db: AsyncSession, regular_user: User) -> Project:
    """A project that the regular user works on."""
    return await create_project(db, team=await create_team(db, members=[regular_user]))


async def test_a_new_label_is_listed(mine: AsyncClient, project: Project) -> None:
    await mine.post(f"/api/projects/{project.id}/labels", json={"name": "bug", "color": "#ff0000"})

    response = await mine.get(f"/api/projects/{project.id}/labels")

    assert [(row["name"], row["color"]) for row in response.json()["items"]] == [("bug", "#ff0000")]


async def test_a_name_is_given_once_in_a_project(
    mine: AsyncClient, db: AsyncSession, project: Project
) -> None:
    await create_label(db, project=project, name="bug")

    response = await mine.post(f"/api/projects/{project.id}/labels", json={"name": "bug"})

    assert response.status_code == 409
    assert response.json() == {"detail": "the project already has a label with this name"}


async def test_another_project_may_use_the_name(
    mine: AsyncClient, db: AsyncSession, project: Project
) -> None:
    await create_label(db, name="bug")

    response = await mine.post(f"/api/projects/{project.id}/labels", json={"name": "bug"})

    assert response.status_code == 201


@pytest.mark.parametrize("color", ["#fff", "#gggggg"])
async def test_a_colour_has_six_hexadecimal_digits(
    mine: AsyncClient, project: Project, color: str
) -> None:
    response = await mine.post(
        f"/api/projects/{project.id}/labels", json={"name": "bug", "color": color}
    )

    assert response.status_code == 422


async def test_a_renamed_label_shows_its_new_name_on_tasks(
    mine: AsyncClient, db: AsyncSession, project: Project
) -> None:
    label = await create_label(db, project=project, name="bug")
    task = await create_task(db, project=project, labels=[label])

    await mine.patch(f"/api/projects/{project.id}/labels/{label.id}", json={"name": "defect"})

    response = await mine.get(f"/api/tasks/{task.id}")
    assert [row["name"] for row in response.json()["labels"]] == ["defect"]


async def test_a_deleted_label_leaves_its_tasks(
    mine: AsyncClient, db: AsyncSession, project: Project
) -> None:
    label = await create_label(db, project=project)
    task = await create_task(db, project=project, labels=[label])

    response = await mine.delete(f"/api/projects/{project.id}/labels/{label.id}")

    after = await mine.get(f"/api/tasks/{task.id}")
    assert response.status_code == 204
    assert after.json()["labels"] == []


async def test_attaching_twice_is_attaching_once(
    mine: AsyncClient, db: AsyncSession, project: Project
) -> None:
    label = await create_label(db, project=project)
    task = await create_task(db, project=project)
    await mine.put(f"/api/tasks/{task.id}/labels/{label.id}")

    response = await mine.put(f"/api/tasks/{task.id}/labels/{label.id}")

    assert response.status_code == 204
    assert await db.scalar(select(func.count()).select_from(task_labels)) == 1


async def test_a_label_of_another_project_cannot_be_attached(
    mine: AsyncClient, db: AsyncSession, project: Project
) -> None:
    foreign = await create_label(db)
    task = await create_task(db, project=project)

    response = await mine.put(f"/api/tasks/{task.id}/labels/{foreign.id}")

    assert response.status_code == 404
    assert response.json() == {"detail": "label not found"}


async def test_a_label_can_be_taken_off(
    mine: AsyncClient, db: AsyncSession, project: Project
) -> None:
    label = await create_label(db, project=project)
    task = await create_task(db, project=project, labels=[label])

    response = await mine.delete(f"/api/tasks/{task.id}/labels/{label.id}")

    assert response.status_code == 204
    assert await db.scalar(select(func.count()).select_from(task_labels)) == 0
