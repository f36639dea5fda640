"""What routers ask for: a session, the user, and rows that this user may see or change."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Query
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy import ColumnElement, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, contains_eager

from app.db import get_db
from app.errors import ForbiddenError, NotFoundError, UnauthenticatedError
from app.models import Comment, Project, Task, Team, TeamMember, TeamRole, User
from app.pagination import PageQuery
from app.projects.service import refuse_if_archived
from app.roles import Permission
from app.schemas import Id
from app.security import decode_access_token

DbSession = Annotated[AsyncSession, Depends(get_db)]
PageParams = Annotated[PageQuery, Query()]

oauth2_scheme = OAuth2PasswordBearer(tokenUrl="/api/auth/login")


async def get_current_user(
    db: DbSession,
    token: Annotated[str, Depends(oauth2_scheme)],
) -> User:
    """Return the active user that the bearer token names, or answer 401."""
    user_id = decode_access_token(token)
    user = await db.get(User, user_id) if user_id is not None else None
    if user is None or not user.is_active:
        raise UnauthenticatedError("invalid or expired token")
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]


def require(permission: Permission) -> Callable[[CurrentUser], Awaitable[None]]:
    """Return a dependency that answers 403 to users without `permission`."""

    async def check(user: CurrentUser) -> None:
        if not user.may(permission):
            raise ForbiddenError(f"this needs the permission {permission.value!r}")

    return check


CanWork = Depends(require(Permission.WORK))


def visible(user: User, team_id: InstrumentedAttribute[int]) -> ColumnElement[bool]:
    """Return the condition that `team_id` is a team whose contents `user` may see."""
    if user.may(Permission.ACCESS_ALL_TEAMS):
        return true()
    return team_id.in_(select(TeamMember.team_id).where(TeamMember.user_id == user.id))


async def get_team_for_member(team_id: Id, user: CurrentUser, db: DbSession) -> Team:
    """Return the team, or 404 as for one that does not exist."""
    team = await db.scalar(select(Team).where(Team.id == team_id, visible(user, Team.id)))
    if team is None:
        raise NotFoundError("team not found")
    return team


MemberTeam = Annotated[Team, Depends(get_team_for_member)]


async def get_team_for_owner(team: MemberTeam, user: CurrentUser, db: DbSession) -> Team:
    """Return the team, or 403 to members who do not own it."""
    if user.may(Permission.ACCESS_ALL_TEAMS):
        return team
    member = await db.get(TeamMember, (team.id, user.id))
    if member is None or member.role is not TeamRole.OWNER:
        raise ForbiddenError("only an owner of the team may do this")
    return team


OwnedTeam = Annotated[Team, Depends(get_team_for_owner)]


async def get_project_for_member(project_id: Id, user: CurrentUser, db: DbSession) -> Project:
    """Return the project, or 404 to those outside its team."""
    project = await db.scalar(
        select(Project).where(Project.id == project_id, visible(user, Project.team_id)),
    )
    if project is None:
        raise NotFoundError("project not found")
    return project


MemberProject = Annotated[Project, Depends(get_project_for_member)]


async def get_writable_project(project: MemberProject) -> Project:
    """Return the project, or 409 when it is archived."""
    refuse_if_archived(project)
    return project


WritableProject = Annotated[Project, Depends(get_writable_project)]


async def get_task_for_member(task_id: Id, user: CurrentUser, db: DbSession) -> Task:
    """Return the task with its project, or 404 to those outside its team."""
    task = await db.scalar(
        select(Task)
        .join(Task.project)
        .options(contains_eager(Task.project))
        .where(Task.id == task_id, visible(user, Project.team_id)),
    )
    if task is None:
        raise NotFoundError("task not found")
    return task


MemberTask = Annotated[Task, Depends(get_task_for_member)]


async def get_writable_task(task: MemberTask) -> Task:
    """Return the task, or 409 when its project is archived."""
    refuse_if_archived(task.project)
    return task


WritableTask = Annotated[Task, Depends(get_writable_task)]


async def get_writable_comment(comment_id: Id, user: CurrentUser, db: DbSession) -> Comment:
    """Return the comment: 404 to those outside its team, 409 when its project is archived."""
    row = (
        await db.execute(
            select(Comment, Project)
            .join(Task, Task.id == Comment.task_id)
            .join(Project, Project.id == Task.project_id)
            .where(Comment.id == comment_id, visible(user, Project.team_id)),
        )
    ).one_or_none()
    if row is None:
        raise NotFoundError("comment not found")
    comment, project = row
    refuse_if_archived(project)
    return comment


WritableComment = Annotated[Comment, Depends(get_writable_comment)]
