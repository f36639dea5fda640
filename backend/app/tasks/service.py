"""What may happen to a task."""

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.service import record
from app.errors import STALE, ConflictError, InvalidError, explain
from app.models import Project, Task, TaskStatus, TeamMember, User
from app.projects.service import lock_writable_project
from app.tasks.ordering import next_position
from app.tasks.schemas import (
    ImportedOut,
    ImportOut,
    RefusedOut,
    StatsOut,
    TaskCreate,
    TaskIn,
    TaskPatch,
)

TRANSITIONS: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.TODO: frozenset({TaskStatus.IN_PROGRESS, TaskStatus.CANCELLED}),
    TaskStatus.IN_PROGRESS: frozenset({TaskStatus.TODO, TaskStatus.DONE, TaskStatus.CANCELLED}),
    TaskStatus.DONE: frozenset({TaskStatus.IN_PROGRESS}),
    TaskStatus.CANCELLED: frozenset({TaskStatus.TODO}),
}


async def create_task(db: AsyncSession, actor: User, project: Project, payload: TaskCreate) -> Task:
    """Create a task at the end of the project."""
    project = await lock_writable_project(db, project.id)
    await _require_member(db, project, payload.assignee_id)
    task = _new_task(project, await next_position(db, project.id), payload)
    db.add(task)
    await db.flush()
    record(db, actor, "create", "task", task.id, title=task.title)
    return task


async def import_tasks(
    db: AsyncSession,
    actor: User,
    project: Project,
    rows: list[TaskIn],
) -> ImportOut:
    """Create what can be created; a row that breaks a constraint costs the others nothing."""
    project = await lock_writable_project(db, project.id)
    position = await next_position(db, project.id)
    result = ImportOut(created=[], failed=[])
    for number, row in enumerate(rows):
        task = _new_task(project, position, row)
        try:
            async with db.begin_nested():
                db.add(task)
        except IntegrityError as error:
            refusal = explain(error)
            if refusal is None:
                raise
            result.failed.append(RefusedOut(row=number, reason=str(refusal)))
        else:
            position += 1
            result.created.append(ImportedOut(row=number, task_id=task.id))
            record(db, actor, "import", "task", task.id, title=task.title)
    return result


def update_task(db: AsyncSession, actor: User, task: Task, patch: TaskPatch) -> None:
    """Change a task, unless somebody else has since it was read."""
    if patch.version != task.version:
        raise ConflictError(STALE)
    if changes := patch.apply(task):
        record(db, actor, "update", "task", task.id, **changes)


def change_status(db: AsyncSession, actor: User, task: Task, status: TaskStatus) -> None:
    """Take a step that the life of a task allows."""
    before = task.status
    if status not in TRANSITIONS[before]:
        raise ConflictError(f"a task cannot go from {before.value} to {status.value}")
    task.status = status
    record(db, actor, "change_status", "task", task.id, before=before, after=status)


async def assign(db: AsyncSession, actor: User, task: Task, assignee_id: int | None) -> None:
    """Give the task to a member of the team, or to nobody."""
    await _require_member(db, task.project, assignee_id)
    if task.assignee_id != assignee_id:
        task.assignee_id = assignee_id
        record(db, actor, "assign", "task", task.id, assignee_id=assignee_id)


async def count_by_status(db: AsyncSession, project: Project) -> StatsOut:
    """Count the tasks of a project; a status without tasks counts zero."""
    rows = await db.execute(
        select(Task.status, func.count())
        .where(Task.project_id == project.id)
        .group_by(Task.status),
    )
    counts = dict.fromkeys(TaskStatus, 0) | dict(rows.all())
    return StatsOut(total=sum(counts.values()), by_status=counts)


def _new_task(project: Project, position: int, payload: TaskIn) -> Task:
    # Empty rather than unset: an async session could not load the labels while answering.
    return Task(project_id=project.id, position=position, labels=[], **payload.model_dump())


async def _require_member(db: AsyncSession, project: Project, user_id: int | None) -> None:
    if user_id is None:
        return
    member = await db.scalar(
        select(User.id)
        .join(TeamMember, TeamMember.user_id == User.id)
        .where(TeamMember.team_id == project.team_id, User.id == user_id, User.is_active),
    )
    if member is None:
        raise InvalidError("the assignee must be an active member of the team")
