"""What each role may do, in code and in the database."""

from enum import StrEnum

from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import PermissionRow, Role, role_permissions


class RoleName(StrEnum):
    """The roles that there are; a user has one."""

    ADMIN = "admin"
    MANAGER = "manager"
    MEMBER = "member"
    VIEWER = "viewer"


class Permission(StrEnum):
    """Something that not every user may do."""

    WORK = "work"
    CREATE_TEAMS = "create_teams"
    MODERATE = "moderate"
    RUN_JOBS = "run_jobs"
    MANAGE_USERS = "manage_users"
    READ_AUDIT = "read_audit"
    ACCESS_ALL_TEAMS = "access_all_teams"


ROLE_PERMISSIONS: dict[RoleName, frozenset[Permission]] = {
    RoleName.ADMIN: frozenset(Permission),
    RoleName.MANAGER: frozenset(
        {Permission.WORK, Permission.CREATE_TEAMS, Permission.MODERATE, Permission.RUN_JOBS},
    ),
    RoleName.MEMBER: frozenset({Permission.WORK, Permission.CREATE_TEAMS}),
    RoleName.VIEWER: frozenset(),
}


async def setup_roles(session: AsyncSession) -> None:
    """Make the role tables say what `ROLE_PERMISSIONS` says, and commit.

    Safe to run again, and from several processes that start at once.
    """
    await session.execute(
        insert(Role)
        .values([{"name": role.value} for role in RoleName])
        .on_conflict_do_nothing(index_elements=[Role.name]),
    )
    await session.execute(
        insert(PermissionRow)
        .values([{"name": permission.value} for permission in Permission])
        .on_conflict_do_nothing(index_elements=[PermissionRow.name]),
    )
    wanted = (
        select(Role.id, PermissionRow.id)
        .join(PermissionRow, onclause=tuple_(Role.name, PermissionRow.name).in_(_pairs()))
        .order_by(Role.id, PermissionRow.id)
    )
    links = role_permissions.c
    await session.execute(
        delete(role_permissions).where(
            tuple_(links.role_id, links.permission_id).not_in(wanted.order_by(None)),
        ),
    )
    await session.execute(
        insert(role_permissions)
        .from_select(["role_id", "permission_id"], wanted)
        .on_conflict_do_nothing(),
    )
    await session.commit()


def _pairs() -> list[tuple[str, str]]:
    return [
        (role.value, permission.value)
        for role, permissions in ROLE_PERMISSIONS.items()
        for permission in sorted(permissions)
    ]
