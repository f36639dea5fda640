"""User administration."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.service import record
from app.auth.service import revoke_all
from app.errors import ConflictError, NotFoundError
from app.models import Role, TeamMember, TeamRole, User
from app.users.schemas import UserPatch


async def get_user(db: AsyncSession, user_id: int) -> User:
    """Return the user of this id."""
    user = await db.get(User, user_id)
    if user is None:
        raise NotFoundError("user not found")
    return user


async def update_user(db: AsyncSession, actor: User, user: User, patch: UserPatch) -> None:
    """Change role or access; nobody can lock themselves out."""
    given = patch.model_dump(exclude_unset=True, mode="json")
    before = {"role": user.role.name, "is_active": user.is_active}
    changes = {field: value for field, value in given.items() if value != before[field]}
    if not changes:
        return
    if user.id == actor.id:
        raise ConflictError("you cannot change your own role or access")
    if "role" in changes:
        user.role = (await db.scalars(select(Role).where(Role.name == patch.role))).one()
    if "is_active" in changes:
        user.is_active = patch.is_active
        await revoke_all(db, user)
    record(db, actor, "update", "user", user.id, **changes)


async def delete_user(db: AsyncSession, actor: User, user: User) -> None:
    """Delete the account; what it wrote stays, without a name."""
    if user.id == actor.id:
        raise ConflictError("you cannot delete yourself")
    if await _is_last_owner(db, user):
        raise ConflictError("the user is the last owner of a team")
    record(db, actor, "delete", "user", user.id)
    await db.delete(user)


async def _is_last_owner(db: AsyncSession, user: User) -> bool:
    owned = select(TeamMember.team_id).where(
        TeamMember.user_id == user.id,
        TeamMember.role == TeamRole.OWNER,
    )
    alone = (
        select(TeamMember.team_id)
        .where(TeamMember.team_id.in_(owned), TeamMember.role == TeamRole.OWNER)
        .group_by(TeamMember.team_id)
        .having(func.count() == 1)
        .limit(1)
    )
    return await db.scalar(alone) is not None
