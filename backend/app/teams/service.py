"""Teams and memberships."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from app.audit.service import record
from app.errors import ConflictError, NotFoundError
from app.models import Team, TeamMember, TeamRole, User
from app.teams.schemas import MemberIn, MemberPatch, TeamIn, TeamPatch


async def create_team(db: AsyncSession, actor: User, payload: TeamIn) -> Team:
    """Create a team with `actor` as its owner."""
    team = Team(**payload.model_dump())
    db.add(team)
    await db.flush()
    db.add(TeamMember(team_id=team.id, user_id=actor.id, role=TeamRole.OWNER))
    record(db, actor, "create", "team", team.id, slug=team.slug)
    return team


def update_team(db: AsyncSession, actor: User, team: Team, patch: TeamPatch) -> None:
    """Change name or slug."""
    if changes := patch.apply(team):
        record(db, actor, "update", "team", team.id, **changes)


async def delete_team(db: AsyncSession, actor: User, team: Team) -> None:
    """Delete a team without projects; the database refuses others."""
    record(db, actor, "delete", "team", team.id, slug=team.slug)
    await db.delete(team)


async def add_member(db: AsyncSession, actor: User, team: Team, payload: MemberIn) -> TeamMember:
    """Add a user, once."""
    member = TeamMember(team_id=team.id, user_id=payload.user_id, role=payload.role)
    db.add(member)
    await db.flush()
    await db.refresh(member, ["user"])
    record(db, actor, "add_member", "team", team.id, user_id=member.user_id, role=member.role)
    return member


async def get_member(db: AsyncSession, team: Team, user_id: int) -> TeamMember:
    """Return the membership with its user."""
    member = await db.scalar(
        select(TeamMember)
        .where(TeamMember.team_id == team.id, TeamMember.user_id == user_id)
        .options(joinedload(TeamMember.user, innerjoin=True)),
    )
    if member is None:
        raise NotFoundError("member not found")
    return member


async def change_role(
    db: AsyncSession,
    actor: User,
    member: TeamMember,
    patch: MemberPatch,
) -> None:
    """Make a member an owner or the reverse."""
    if patch.role is TeamRole.MEMBER:
        await _keep_an_owner(db, member)
    if changes := patch.apply(member):
        record(db, actor, "change_role", "team", member.team_id, user_id=member.user_id, **changes)


async def remove_member(db: AsyncSession, actor: User, member: TeamMember) -> None:
    """End a membership."""
    await _keep_an_owner(db, member)
    record(db, actor, "remove_member", "team", member.team_id, user_id=member.user_id)
    await db.delete(member)


async def _keep_an_owner(db: AsyncSession, leaving: TeamMember) -> None:
    # Locked, or the last two owners could leave at once, each counting on the other.
    owners = await db.scalars(
        select(TeamMember.user_id)
        .where(TeamMember.team_id == leaving.team_id, TeamMember.role == TeamRole.OWNER)
        .order_by(TeamMember.user_id)
        .with_for_update(),
    )
    if owners.all() == [leaving.user_id]:
        raise ConflictError("the last owner cannot leave the team")
