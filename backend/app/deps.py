"""What routers ask for: the user, and rows that this user may see or change."""

from typing import Annotated

from fastapi import Depends
from sqlalchemy import ColumnElement, select, true
from sqlalchemy.orm import InstrumentedAttribute, contains_eager

from app.current_user import CurrentUser, get_current_user
from app.db import DbSession
from app.errors import ConflictError, ForbiddenError, NotFoundError
from app.models import Comment, Project, Task, Team, TeamMember, TeamRole, User
from app.roles import Permission, require
from app.schemas import Id

__all__ = ["CanWork", "CurrentUser", "DbSession", "get_current_user", "require"]

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
        raise NotFoundError(what="team")
    return team


MemberTeam = Annotated[Team, Depends(get_team_for_member)]


async def is_owner(db: DbSession, team: Team, user: User) -> bool:
    """Tell whether `user` may decide about `team`."""
    if user.may(Permission.ACCESS_ALL_TEAMS):
        return True
    role = await db.scalar(
        select(TeamMember.role).where(TeamMember.team_id == team.id, TeamMember.user_id == user.id),
    )
    return role is TeamRole.OWNER


async def get_team_for_owner(team: MemberTeam, user: CurrentUser, db: DbSession) -> Team:
    """Return the team, or 403 to members who do not own it."""
    if not await is_owner(db, team, user):
        raise ForbiddenError(detail="only an owner of the team may do this")
    return team


OwnedTeam = Annotated[Team, Depends(get_team_for_owner)]


async def get_project_for_member(project_id: Id, user: CurrentUser, db: DbSession) -> Project:
    """Return the project, or 404 to those outside its team."""
    project = await db.scalar(
        select(Project).where(Project.id == project_id, visible(user, Project.team_id)),
    )
    if project is None:
        raise NotFoundError(what="project")
    return project


MemberProject = Annotated[Project, Depends(get_project_for_member)]


def refuse_if_archived(project: Project) -> None:
    """Answer 409 when nothing in `project` may change any more."""
    if project.archived_at is not None:
        raise ConflictError(detail="the project is archived")


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
        raise NotFoundError(what="task")
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
        raise NotFoundError(what="comment")
    comment, project = row
    refuse_if_archived(project)
    return comment


WritableComment = Annotated[Comment, Depends(get_writable_comment)]
