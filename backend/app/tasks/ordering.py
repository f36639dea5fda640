"""The order of a project's tasks: 1, 2, 3 and so on, without gaps.

Every change locks the project first. Within the transaction two tasks may share a position for a
moment: the constraint on it is checked at commit.
"""

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.service import record
from app.errors import NotFoundError
from app.models import Task, User
from app.projects.service import lock_writable_project


async def next_position(db: AsyncSession, project_id: int) -> int:
    """Return the position behind the last task."""
    last = await db.scalar(select(func.max(Task.position)).where(Task.project_id == project_id))
    return (last or 0) + 1


async def move_task(db: AsyncSession, actor: User, task: Task, position: int) -> None:
    """Put the task at `position`, or at the end; those between step aside."""
    task = await _lock(db, task)
    position = min(position, await next_position(db, task.project_id) - 1)
    before = task.position
    if position == before:
        return
    if position > before:
        await _shift(db, task, before + 1, position, by=-1)
    else:
        await _shift(db, task, position, before - 1, by=1)
    task.position = position
    record(db, actor, "move", "task", task.id, before=before, after=position)


async def delete_task(db: AsyncSession, actor: User, task: Task) -> None:
    """Delete the task and close the gap."""
    task = await _lock(db, task)
    last = await next_position(db, task.project_id) - 1
    record(db, actor, "delete", "task", task.id, title=task.title)
    await db.delete(task)
    await _shift(db, task, task.position + 1, last, by=-1)


async def _lock(db: AsyncSession, task: Task) -> Task:
    """Return the task as it is once nobody else can reorder the project."""
    await lock_writable_project(db, task.project_id)
    current = await db.scalar(
        select(Task).where(Task.id == task.id).execution_options(populate_existing=True),
    )
    if current is None:
        raise NotFoundError("task not found")
    return current


async def _shift(db: AsyncSession, moved: Task, first: int, last: int, *, by: int) -> None:
    """Shift the tasks from `first` to `last`; their versions stay, as nobody has edited them."""
    await db.execute(
        update(Task)
        .where(
            Task.project_id == moved.project_id,
            Task.id != moved.id,
            Task.position.between(first, last),
        )
        .values(position=Task.position + by, updated_at=Task.updated_at)
        .execution_options(synchronize_session=False),
    )
