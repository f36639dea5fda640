"""What every PATCH promises: null is refused, and what changes nothing is not recorded."""

import pytest
from httpx import AsyncClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import AuditEvent, User
from tests.factories import add_member, create_comment, create_label, create_task

# A change of a task has to say which version it is of.
VERSIONS = {"task": {"version": 1}}


@pytest.fixture
async def paths(db: AsyncSession, admin_user: User) -> dict[str, str]:
    """Where to change each kind of row; there is one of each."""
    task = await create_task(db)
    label = await create_label(db, project=task.project)
    comment = await create_comment(db, task=task, author=admin_user, body="Done.")
    member = await add_member(db, team_id=task.project.team_id)
    return {
        "user": f"/api/users/{member.user_id}",
        "team": f"/api/teams/{member.team_id}",
        "member": f"/api/teams/{member.team_id}/members/{member.user_id}",
        "project": f"/api/projects/{task.project_id}",
        "label": f"/api/projects/{task.project_id}/labels/{label.id}",
        "task": f"/api/tasks/{task.id}",
        "comment": f"/api/comments/{comment.id}",
    }


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("user", "is_active"),
        ("team", "slug"),
        ("member", "role"),
        ("project", "description"),
        ("label", "color"),
        ("task", "title"),
        ("comment", "body"),
    ],
)
async def test_null_is_refused_where_a_value_is_needed(
    admin_client: AsyncClient, paths: dict[str, str], kind: str, field: str
) -> None:
    patch = VERSIONS.get(kind, {}) | {field: None}

    response = await admin_client.patch(paths[kind], json=patch)

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["detail"]] == [["body", field]]


@pytest.mark.parametrize("kind", ["user", "team", "member", "project", "label", "task", "comment"])
async def test_an_empty_patch_is_not_recorded(
    admin_client: AsyncClient, db: AsyncSession, paths: dict[str, str], kind: str
) -> None:
    response = await admin_client.patch(paths[kind], json=VERSIONS.get(kind, {}))

    assert response.status_code == 200
    assert await db.scalar(select(func.count()).select_from(AuditEvent)) == 0


async def test_a_patch_that_repeats_what_is_stored_is_not_recorded(
    admin_client: AsyncClient, db: AsyncSession, paths: dict[str, str]
) -> None:
    response = await admin_client.patch(paths["comment"], json={"body": "Done."})

    assert response.json()["edited_at"] is None
    assert await db.scalar(select(func.count()).select_from(AuditEvent)) == 0
