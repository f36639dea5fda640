"""Finding tasks: filters, words, pages."""

import pytest
from httpx import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Project, TaskStatus, User
from tests.factories import create_label, create_project, create_task


async def found(client: AsyncClient, project: Project, **query: object) -> list[str]:
    """Return the titles of the tasks that a query finds."""
    response = await client.get(
        f"/api/projects/{project.id}/tasks", params={key: str(query[key]) for key in query}
    )
    return [task["title"] for task in response.json()["items"]]


async def test_tasks_come_in_their_order(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    for title in ("one", "two", "three"):
        await create_task(db, project=project, title=title)

    assert await found(user_client, project) == ["one", "two", "three"]


async def test_a_cursor_goes_on_where_the_page_ended(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    for title in ("one", "two", "three"):
        await create_task(db, project=project, title=title)
    path = f"/api/projects/{project.id}/tasks"

    first = (await user_client.get(path, params={"limit": 2})).json()

    assert await found(user_client, project, limit=2, cursor=first["next_cursor"]) == ["three"]


@pytest.mark.parametrize("cursor", ["made up", "YWZ0ZXI6LTE="])
async def test_a_cursor_that_nobody_gave_is_refused(
    user_client: AsyncClient, db: AsyncSession, regular_user: User, cursor: str
) -> None:
    project = await create_project(db, member=regular_user)

    response = await user_client.get(f"/api/projects/{project.id}/tasks", params={"cursor": cursor})

    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["query", "cursor"]


async def test_tasks_are_found_by_status(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    await create_task(db, project=project)
    await create_task(db, project=project, title="finished", status=TaskStatus.DONE)

    assert await found(user_client, project, status="done") == ["finished"]


async def test_tasks_are_found_by_assignee(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    await create_task(db, project=project)
    await create_task(db, project=project, title="mine", assignee=regular_user)

    assert await found(user_client, project, assignee=regular_user.id) == ["mine"]


async def test_tasks_are_found_by_label(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    label = await create_label(db, project=project, name="bug")
    await create_task(db, project=project)
    await create_task(db, project=project, title="broken", labels=[label])

    assert await found(user_client, project, label="bug") == ["broken"]


async def test_words_are_found_in_any_form_in_title_and_description(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    await create_task(db, project=project, title="Deploying the service")
    await create_task(db, project=project, title="Other", description="we deployed it")
    await create_task(db, project=project, title="Unrelated")

    assert await found(user_client, project, q="deploy") == ["Deploying the service", "Other"]


async def test_a_custom_field_is_found_by_its_value(
    user_client: AsyncClient, db: AsyncSession, regular_user: User
) -> None:
    project = await create_project(db, member=regular_user)
    await create_task(db, project=project, title="three", custom_fields={"points": 3})
    await create_task(db, project=project, title="five", custom_fields={"points": 5})

    assert await found(user_client, project, field="points:3") == ["three"]
