"""Projects."""

from datetime import UTC, datetime

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.service import record
from app.errors import ConflictError, NotFoundError
from app.models import Project, Task, TaskStatus, Team, User
from app.projects.schemas import ProjectIn, ProjectPatch

UNFINISHED = (TaskStatus.TODO, TaskStatus.IN_PROGRESS)


async def create_project(db: AsyncSession, actor: User, team: Team, payload: ProjectIn) -> Project:
    """Create a project in a team."""
    project = Project(team_id=team.id, **payload.model_dump())
    db.add(project)
    await db.flush()
    record(db, actor, "create", "project", project.id, key=project.key)
    return project


def refuse_if_archived(project: Project) -> None:
    """Refuse to change anything in `project` once it is archived."""
    if project.archived_at is not None:
        raise ConflictError("the project is archived")


async def lock_project(db: AsyncSession, project_id: int) -> Project:
    """Return the project as it is now, and keep others from reordering its tasks meanwhile."""
    project = await db.scalar(
        select(Project)
        .where(Project.id == project_id)
        .with_for_update()
        .execution_options(populate_existing=True),
    )
    if project is None:
        raise NotFoundError("project not found")
    return project


async def lock_writable_project(db: AsyncSession, project_id: int) -> Project:
    """Lock the project, or refuse when it has been archived meanwhile."""
    project = await lock_project(db, project_id)
    refuse_if_archived(project)
    return project


def update_project(db: AsyncSession, actor: User, project: Project, patch: ProjectPatch) -> None:
    """Change key, name or description."""
    if changes := patch.apply(project):
        record(db, actor, "update", "project", project.id, **changes)


async def set_archived(db: AsyncSession, actor: User, project: Project, *, archived: bool) -> None:
    """Freeze a project or thaw it; doing so again changes nothing."""
    project = await lock_project(db, project.id)
    if (project.archived_at is not None) == archived:
        return
    project.archived_at = datetime.now(UTC) if archived else None
    record(db, actor, "archive" if archived else "unarchive", "project", project.id)


async def delete_project(db: AsyncSession, actor: User, project: Project) -> None:
    """Delete a project in which nothing is left to do."""
    project = await lock_project(db, project.id)
    unfinished = exists().where(Task.project_id == project.id, Task.status.in_(UNFINISHED))
    if await db.scalar(select(unfinished)):
        raise ConflictError("the project has unfinished tasks")
    record(db, actor, "delete", "project", project.id, key=project.key)
    await db.delete(project)
