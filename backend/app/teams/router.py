"""Endpoints of teams and memberships."""

from typing import Any

from fastapi import APIRouter, Depends, status
from sqlalchemy import select
from sqlalchemy.orm import joinedload

from app.deps import (
    CanWork,
    CurrentUser,
    DbSession,
    MemberTeam,
    OwnedTeam,
    PageParams,
    get_team_for_owner,
    require,
    visible,
)
from app.models import Team, TeamMember
from app.pagination import Page, fetch_page
from app.roles import Permission
from app.schemas import Id
from app.teams import service
from app.teams.schemas import MemberIn, MemberOut, MemberPatch, TeamIn, TeamOut, TeamPatch

router = APIRouter(prefix="/teams", tags=["teams"])


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    response_model=TeamOut,
    dependencies=[Depends(require(Permission.CREATE_TEAMS))],
)
async def create_team(payload: TeamIn, user: CurrentUser, db: DbSession) -> Team:
    """Create a team and own it."""
    team = await service.create_team(db, user, payload)
    await db.commit()
    return team


@router.get("", response_model=Page[TeamOut])
async def list_teams(user: CurrentUser, db: DbSession, page: PageParams) -> dict[str, Any]:
    """List the caller's teams, oldest first; administrators see all."""
    return await fetch_page(db, select(Team).where(visible(user, Team.id)), Team.id, page)


@router.get("/{team_id}", response_model=TeamOut)
async def get_team(team: MemberTeam) -> Team:
    """Return one team."""
    return team


@router.patch("/{team_id}", response_model=TeamOut, dependencies=[CanWork])
async def update_team(patch: TeamPatch, team: OwnedTeam, user: CurrentUser, db: DbSession) -> Team:
    """Rename a team."""
    service.update_team(db, user, team, patch)
    await db.commit()
    return team


@router.delete("/{team_id}", status_code=status.HTTP_204_NO_CONTENT, dependencies=[CanWork])
async def delete_team(team: OwnedTeam, user: CurrentUser, db: DbSession) -> None:
    """Delete a team that has no projects."""
    await service.delete_team(db, user, team)
    await db.commit()


@router.get("/{team_id}/members", response_model=Page[MemberOut])
async def list_members(team: MemberTeam, db: DbSession, page: PageParams) -> dict[str, Any]:
    """List the members of a team in the order of their accounts."""
    members = select(TeamMember).where(TeamMember.team_id == team.id)
    members = members.options(joinedload(TeamMember.user))
    return await fetch_page(db, members, TeamMember.user_id, page)


@router.post(
    "/{team_id}/members",
    status_code=status.HTTP_201_CREATED,
    response_model=MemberOut,
    dependencies=[CanWork],
)
async def add_member(
    payload: MemberIn,
    team: OwnedTeam,
    user: CurrentUser,
    db: DbSession,
) -> TeamMember:
    """Add a user to a team."""
    member = await service.add_member(db, user, team, payload)
    await db.commit()
    return member


@router.patch("/{team_id}/members/{user_id}", response_model=MemberOut, dependencies=[CanWork])
async def change_role(
    user_id: Id,
    patch: MemberPatch,
    team: OwnedTeam,
    user: CurrentUser,
    db: DbSession,
) -> TeamMember:
    """Change a member's role."""
    member = await service.get_member(db, team, user_id)
    await service.change_role(db, user, member, patch)
    await db.commit()
    return member


@router.delete("/{team_id}/members/{user_id}", status_code=status.HTTP_204_NO_CONTENT)
async def remove_member(user_id: Id, team: MemberTeam, user: CurrentUser, db: DbSession) -> None:
    """Remove a member; anybody may leave, only owners remove others."""
    if user_id != user.id:
        await require(Permission.WORK)(user)
        await get_team_for_owner(team, user, db)
    await service.remove_member(db, user, await service.get_member(db, team, user_id))
    await db.commit()
