"""Who may do what: the four roles, and those without one."""

import re

import pytest
from httpx import AsyncClient
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import PermissionRow, Role, User, role_permissions
from app.roles import ROLE_PERMISSIONS, setup_roles
from tests.factories import ClientFactory, create_job, create_task, create_team, create_user

WITHOUT_TOKEN = {
    "/health",
    *(f"/api/auth/{path}" for path in ("register", "login", "refresh", "logout")),
}
TEAM = {"name": "Night shift", "slug": "night-shift"}


@pytest.mark.parametrize(
    ("role", "status"), [("admin", 201), ("manager", 201), ("member", 201), ("viewer", 403)]
)
async def test_who_may_create_a_team(
    client_factory: ClientFactory, db: AsyncSession, role: str, status: int
) -> None:
    user = await create_user(db, role=role)

    response = await client_factory(user).post("/api/teams", json=TEAM)

    assert response.status_code == status


@pytest.mark.parametrize(
    ("role", "status"), [("admin", 200), ("manager", 403), ("member", 403), ("viewer", 403)]
)
async def test_who_may_read_the_audit_log(
    client_factory: ClientFactory, db: AsyncSession, role: str, status: int
) -> None:
    user = await create_user(db, role=role)

    response = await client_factory(user).get("/api/audit")

    assert response.status_code == status


@pytest.mark.parametrize(
    ("role", "status"), [("admin", 200), ("manager", 403), ("member", 403), ("viewer", 403)]
)
async def test_who_may_manage_users(
    client_factory: ClientFactory, db: AsyncSession, role: str, status: int
) -> None:
    user = await create_user(db, role=role)

    response = await client_factory(user).get("/api/users")

    assert response.status_code == status


@pytest.mark.parametrize(
    ("role", "status"), [("admin", 200), ("manager", 200), ("member", 403), ("viewer", 403)]
)
async def test_who_may_claim_a_job(
    client_factory: ClientFactory, db: AsyncSession, role: str, status: int
) -> None:
    await create_job(db)
    user = await create_user(db, role=role)

    response = await client_factory(user).post("/api/jobs/claim")

    assert response.status_code == status


async def test_every_endpoint_but_those_of_login_needs_a_token(client: AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()["paths"]

    open_to_all = {
        path
        for path, methods in described.items()
        for method in methods
        if (await client.request(method, re.sub(r"{\w+}", "1", path))).status_code != 401
    }

    assert open_to_all == WITHOUT_TOKEN


async def test_a_viewer_reads_what_the_team_does(
    client_factory: ClientFactory, db: AsyncSession
) -> None:
    viewer = await create_user(db, role="viewer")
    team = await create_team(db, members=[viewer])

    response = await client_factory(viewer).get(f"/api/teams/{team.id}")

    assert response.status_code == 200


async def test_a_viewer_changes_nothing(client_factory: ClientFactory, db: AsyncSession) -> None:
    viewer = await create_user(db, role="viewer")
    task = await create_task(db)

    response = await client_factory(viewer).post(
        f"/api/tasks/{task.id}/comments", json={"body": "x"}
    )

    assert response.status_code == 403
    assert response.json() == {"detail": "this needs the permission 'work'"}


async def test_an_outsider_does_not_learn_that_a_task_exists(
    client_factory: ClientFactory, db: AsyncSession, regular_user: User
) -> None:
    task = await create_task(db)

    response = await client_factory(regular_user).get(f"/api/tasks/{task.id}")

    assert response.status_code == 404
    assert response.json() == {"detail": "task not found"}


async def test_an_administrator_sees_every_team(
    client_factory: ClientFactory, db: AsyncSession, admin_user: User
) -> None:
    team = await create_team(db)

    response = await client_factory(admin_user).get("/api/teams")

    assert [row["slug"] for row in response.json()["items"]] == [team.slug]


async def test_an_inactive_user_is_shut_out(
    client_factory: ClientFactory, db: AsyncSession
) -> None:
    user = await create_user(db, role="admin", is_active=False)

    response = await client_factory(user).get("/api/users")

    assert response.status_code == 401


async def test_the_roles_in_the_database_are_those_in_the_code(
    client: AsyncClient, db: AsyncSession
) -> None:
    query = (
        select(Role.name, PermissionRow.name)
        .join(role_permissions, role_permissions.c.role_id == Role.id)
        .join(PermissionRow, PermissionRow.id == role_permissions.c.permission_id)
    )

    stored = {(role, permission) for role, permission in (await db.execute(query)).all()}

    wanted = {(role, each.value) for role, given in ROLE_PERMISSIONS.items() for each in given}
    assert stored == wanted


async def test_setting_the_roles_up_again_changes_nothing(
    client: AsyncClient, db: AsyncSession
) -> None:
    before = (await db.scalars(select(Role.id).order_by(Role.id))).all()
    await db.commit()

    await setup_roles(db)

    assert (await db.scalars(select(Role.id).order_by(Role.id))).all() == before
