"""Tasks: created, read, changed and assigned."""

import pytest
from httpx import AsyncClient
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Task, User
from tests.factories import create_project, create_task, create_user


async def test_a_new_task_goes_to_the_end(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    await create_task(db, project=project)

    response = await user_client.post(f"/api/projects/{project.id}/tasks", json={"title": "Second"})

    body = response.json()
    assert response.status_code == 201
    assert (body["position"], body["status"], body["version"]) == (2, "todo", 1)


async def test_a_task_keeps_what_it_was_given(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    task = {
        "title": "Ship it",
        "description": "To production",
        "priority": "high",
        "start_date": "2026-01-01",
        "due_date": "2026-01-31",
        "external_ref": "JIRA-1",
        "custom_fields": {"points": 3, "tags": ["a", "b"]},
    }
    created = (await user_client.post(f"/api/projects/{project.id}/tasks", json=task)).json()

    response = await user_client.get(f"/api/tasks/{created['id']}")

    assert {key: response.json()[key] for key in task} == task


async def test_an_external_reference_is_unique_in_a_project(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    await create_task(db, project=project, external_ref="JIRA-1")

    response = await user_client.post(
        f"/api/projects/{project.id}/tasks", json={"title": "Again", "external_ref": "JIRA-1"}
    )

    assert response.status_code == 409
    assert response.json() == {"detail": "the project already has this external_ref"}


async def test_a_task_is_not_due_before_it_starts(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    dates = {"start_date": "2026-02-01", "due_date": "2026-01-31"}

    response = await user_client.post(
        f"/api/projects/{project.id}/tasks", json={"title": "Back in time"} | dates
    )

    assert response.status_code == 422
    assert response.json() == {"detail": "due_date must not be before start_date"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("title", ""), ("priority", "urgent!")],
)
async def test_an_invalid_task_is_refused(
    user_client: AsyncClient, db: AsyncSession, regular_user: User, field: str, value: str
) -> None:
    project = await create_project(db, member=regular_user)

    response = await user_client.post(
        f"/api/projects/{project.id}/tasks", json={"title": "Fine"} | {field: value}
    )

    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", field]


async def test_a_title_that_no_column_can_hold_is_refused(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)

    response = await user_client.post(f"/api/projects/{project.id}/tasks", json={"title": "NUL \0"})

    assert response.status_code == 422
    assert response.json() == {"detail": "a value cannot be stored in the database"}


async def test_a_change_leaves_the_other_fields_alone(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    task = await create_task(db, project=project, title="Old", description="Stays")

    response = await user_client.patch(f"/api/tasks/{task.id}", json={"version": 1, "title": "New"})

    body = response.json()
    assert response.status_code == 200
    assert (body["title"], body["description"], body["version"]) == ("New", "Stays", 2)


async def test_null_empties_what_can_be_empty(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    task = await create_task(db, project=project, external_ref="JIRA-1")

    response = await user_client.patch(
        f"/api/tasks/{task.id}", json={"version": 1, "external_ref": None}
    )

    assert response.status_code == 200
    assert response.json()["external_ref"] is None


async def test_a_task_is_assigned_to_a_member(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    task = await create_task(db, project=project)

    response = await user_client.post(
        f"/api/tasks/{task.id}/assign", json={"assignee_id": regular_user.id}
    )

    assert response.status_code == 200
    assert response.json()["assignee_id"] == regular_user.id


async def test_a_task_is_not_assigned_to_an_outsider(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    task = await create_task(db, project=project)
    outsider = await create_user(db)

    response = await user_client.post(
        f"/api/tasks/{task.id}/assign", json={"assignee_id": outsider.id}
    )

    assert response.status_code == 422
    assert response.json() == {"detail": "the assignee must be an active member of the team"}


async def test_a_deleted_task_leaves_no_gap(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    first, second, third = [await create_task(db, project=project) for _ in range(3)]

    response = await user_client.delete(f"/api/tasks/{second.id}")

    rows = await db.execute(select(Task.id, Task.position).order_by(Task.position))
    assert response.status_code == 204
    assert [tuple(row) for row in rows] == [(first.id, 1), (third.id, 2)]
