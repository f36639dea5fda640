"""Labels, and the tasks that carry them."""

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.service import record
from app.errors import NotFoundError
from app.labels.schemas import LabelIn, LabelPatch
from app.models import Label, Project, Task, User, task_labels


async def get_label(db: AsyncSession, project_id: int, label_id: int) -> Label:
    """Return the label, which has to be of that project."""
    label = await db.scalar(
        select(Label).where(Label.id == label_id, Label.project_id == project_id),
    )
    if label is None:
        raise NotFoundError("label not found")
    return label


async def create_label(db: AsyncSession, actor: User, project: Project, payload: LabelIn) -> Label:
    """Create a label in a project."""
    label = Label(project_id=project.id, **payload.model_dump())
    db.add(label)
    await db.flush()
    record(db, actor, "create", "label", label.id, name=label.name)
    return label


def update_label(db: AsyncSession, actor: User, label: Label, patch: LabelPatch) -> None:
    """Rename or recolour a label."""
    if changes := patch.apply(label):
        record(db, actor, "update", "label", label.id, **changes)


async def delete_label(db: AsyncSession, actor: User, label: Label) -> None:
    """Delete a label and take it off every task."""
    record(db, actor, "delete", "label", label.id, name=label.name)
    await db.delete(label)


async def attach(db: AsyncSession, actor: User, task: Task, label: Label) -> None:
    """Put a label on a task; one that is there already stays, even when two ask at once."""
    attached = await db.scalar(
        insert(task_labels)
        .values(task_id=task.id, label_id=label.id)
        .on_conflict_do_nothing()
        .returning(task_labels.c.label_id),
    )
    if attached is not None:
        record(db, actor, "attach_label", "task", task.id, label_id=label.id)


async def detach(db: AsyncSession, actor: User, task: Task, label: Label) -> None:
    """Take a label off a task, if it is there."""
    detached = await db.scalar(
        delete(task_labels)
        .where(task_labels.c.task_id == task.id, task_labels.c.label_id == label.id)
        .returning(task_labels.c.label_id),
    )
    if detached is not None:
        record(db, actor, "detach_label", "task", task.id, label_id=label.id)
