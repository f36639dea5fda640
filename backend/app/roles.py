"""What each role may do, in code and in the database."""

from collections.abc import Awaitable, Callable
from enum import StrEnum

from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.current_user import CurrentUser
from app.errors import ForbiddenError
from app.models import PermissionRow, Role, role_permissions


class Permission(StrEnum):
    """Something that not every user may do."""

    WORK = "work"
    CREATE_TEAMS = "create_teams"
    MODERATE = "moderate"
    RUN_JOBS = "run_jobs"
    MANAGE_USERS = "manage_users"
    READ_AUDIT = "read_audit"
    ACCESS_ALL_TEAMS = "access_all_teams"


ROLE_PERMISSIONS: dict[str, frozenset[Permission]] = {
    "admin": frozenset(Permission),
    "manager": frozenset(
        {Permission.WORK, Permission.CREATE_TEAMS, Permission.MODERATE, Permission.RUN_JOBS},
    ),
    "member": frozenset({Permission.WORK, Permission.CREATE_TEAMS}),
    "viewer": frozenset(),
}


class RoleName(StrEnum):
    """The names of the roles, for validation."""

    ADMIN = "admin"
    MANAGER = "manager"
    MEMBER = "member"
    VIEWER = "viewer"


async def setup_roles(session: AsyncSession) -> None:
    """Make the role tables say what `ROLE_PERMISSIONS` says, and commit.

    Safe to run again, and from several processes that start at once.
    """
    await session.execute(
        insert(Role)
        .values([{"name": name} for name in ROLE_PERMISSIONS])
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
    await session.flush()
    await session.commit()


def _pairs() -> list[tuple[str, str]]:
    return [
        (role, permission.value)
        for role, permissions in ROLE_PERMISSIONS.items()
        for permission in sorted(permissions)
    ]


def require(permission: Permission) -> Callable[[CurrentUser], Awaitable[None]]:
    """Return a dependency that answers 403 to users without `permission`."""

    async def check(user: CurrentUser) -> None:
        if not user.may(permission):
            raise ForbiddenError(detail=f"this needs the permission {permission.value!r}")

    return check
