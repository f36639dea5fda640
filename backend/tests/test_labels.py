"""Labels, and the tasks that carry them."""

import pytest
from httpx import AsyncClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import User, task_labels
from tests.factories import create_label, create_project, create_task


async def test_a_new_label_is_listed(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    await user_client.post(
        f"/api/projects/{project.id}/labels", json={"name": "bug", "color": "#ff0000"}
    )

    response = await user_client.get(f"/api/projects/{project.id}/labels")

    assert [(row["name"], row["color"]) for row in response.json()["items"]] == [("bug", "#ff0000")]


async def test_a_name_is_given_once_in_a_project(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    await create_label(db, project=project, name="bug")

    response = await user_client.post(f"/api/projects/{project.id}/labels", json={"name": "bug"})

    assert response.status_code == 409
    assert response.json() == {"detail": "the project already has a label with this name"}


async def test_another_project_may_use_the_name(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    await create_label(db, name="bug")

    response = await user_client.post(f"/api/projects/{project.id}/labels", json={"name": "bug"})

    assert response.status_code == 201


@pytest.mark.parametrize("color", ["#fff", "#gggggg"])
async def test_a_colour_has_six_hexadecimal_digits(
    user_client: AsyncClient, db: AsyncSession, regular_user: User, color: str
) -> None:
    project = await create_project(db, member=regular_user)

    response = await user_client.post(
        f"/api/projects/{project.id}/labels", json={"name": "bug", "color": color}
    )

    assert response.status_code == 422


async def test_a_renamed_label_shows_its_new_name_on_tasks(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    label = await create_label(db, project=project, name="bug")
    task = await create_task(db, project=project, labels=[label])

    await user_client.patch(
        f"/api/projects/{project.id}/labels/{label.id}", json={"name": "defect"}
    )

    response = await user_client.get(f"/api/tasks/{task.id}")
    assert [row["name"] for row in response.json()["labels"]] == ["defect"]


async def test_a_deleted_label_leaves_its_tasks(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    label = await create_label(db, project=project)
    task = await create_task(db, project=project, labels=[label])

    response = await user_client.delete(f"/api/projects/{project.id}/labels/{label.id}")

    after = await user_client.get(f"/api/tasks/{task.id}")
    assert response.status_code == 204
    assert after.json()["labels"] == []


async def test_attaching_twice_is_attaching_once(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    label = await create_label(db, project=project)
    task = await create_task(db, project=project)
    await user_client.put(f"/api/tasks/{task.id}/labels/{label.id}")

    response = await user_client.put(f"/api/tasks/{task.id}/labels/{label.id}")

    assert response.status_code == 204
    assert await db.scalar(select(func.count()).select_from(task_labels)) == 1


async def test_a_label_of_another_project_cannot_be_attached(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    foreign = await create_label(db)
    task = await create_task(db, project=project)

    response = await user_client.put(f"/api/tasks/{task.id}/labels/{foreign.id}")

    assert response.status_code == 404
    assert response.json() == {"detail": "label not found"}


async def test_a_label_can_be_taken_off(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    label = await create_label(db, project=project)
    task = await create_task(db, project=project, labels=[label])

    response = await user_client.delete(f"/api/tasks/{task.id}/labels/{label.id}")

    assert response.status_code == 204
    assert await db.scalar(select(func.count()).select_from(task_labels)) == 0
