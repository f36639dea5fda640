"""Endpoints of projects."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, status
from sqlalchemy import select

from app.deps import (
    CanWork,
    CurrentUser,
    DbSession,
    MemberProject,
    MemberTeam,
    PageParams,
    WritableProject,
    visible,
)
from app.models import Project
from app.pagination import Page, fetch_page
from app.projects import service
from app.projects.schemas import ProjectIn, ProjectOut, ProjectPatch, ProjectQuery

router = APIRouter(tags=["projects"])


@router.post(
    "/teams/{team_id}/projects",
    status_code=status.HTTP_201_CREATED,
    response_model=ProjectOut,
    dependencies=[CanWork],
)
async def create_project(
    payload: ProjectIn,
    team: MemberTeam,
    user: CurrentUser,
    db: DbSession,
) -> Project:
    """Create a project in a team."""
    project = await service.create_project(db, user, team, payload)
    await db.commit()
    return project


@router.get("/projects", response_model=Page[ProjectOut])
async def list_projects(
    user: CurrentUser,
    db: DbSession,
    query: Annotated[ProjectQuery, Query()],
) -> dict[str, Any]:
    """List the projects of all the caller's teams."""
    projects = select(Project).where(visible(user, Project.team_id))
    if query.archived is not None:
        projects = projects.where(Project.archived_at.is_not(None) == query.archived)
    return await fetch_page(db, projects, Project.id, query)


@router.get("/teams/{team_id}/projects", response_model=Page[ProjectOut])
async def list_team_projects(team: MemberTeam, db: DbSession, page: PageParams) -> dict[str, Any]:
    """List the projects of one team."""
    projects = select(Project).where(Project.team_id == team.id)
    return await fetch_page(db, projects, Project.id, page)


@router.get("/projects/{project_id}", response_model=ProjectOut)
async def get_project(project: MemberProject) -> Project:
    """Return one project."""
    return project


@router.patch("/projects/{project_id}", response_model=ProjectOut, dependencies=[CanWork])
async def update_project(
    patch: ProjectPatch,
    project: WritableProject,
    user: CurrentUser,
    db: DbSession,
) -> Project:
    """Change a project."""
    service.update_project(db, user, project, patch)
    await db.commit()
    return project


@router.post("/projects/{project_id}/archive", response_model=ProjectOut, dependencies=[CanWork])
async def archive(project: MemberProject, user: CurrentUser, db: DbSession) -> Project:
    """Make a project read-only."""
    await service.set_archived(db, user, project, archived=True)
    await db.commit()
    return project


@router.post("/projects/{project_id}/unarchive", response_model=ProjectOut, dependencies=[CanWork])
async def unarchive(project: MemberProject, user: CurrentUser, db: DbSession) -> Project:
    """Make an archived project writable again."""
    await service.set_archived(db, user, project, archived=False)
    await db.commit()
    return project


@router.delete(
    "/projects/{project_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[CanWork],
)
async def delete_project(project: MemberProject, user: CurrentUser, db: DbSession) -> None:
    """Delete a project without unfinished tasks, archived or not."""
    await service.delete_project(db, user, project)
    await db.commit()
