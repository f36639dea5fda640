"""Endpoints of labels."""

from typing import Any

from fastapi import APIRouter, status
from sqlalchemy import select

from app.deps import (
    CanWork,
    CurrentUser,
    DbSession,
    MemberProject,
    PageParams,
    WritableProject,
    WritableTask,
)
from app.labels import service
from app.labels.schemas import LabelIn, LabelOut, LabelPatch
from app.models import Label
from app.pagination import Page, fetch_page
from app.schemas import Id

router = APIRouter(tags=["labels"])


@router.post(
    "/projects/{project_id}/labels",
    status_code=status.HTTP_201_CREATED,
    response_model=LabelOut,
    dependencies=[CanWork],
)
async def create_label(
    payload: LabelIn,
    project: WritableProject,
    user: CurrentUser,
    db: DbSession,
) -> Label:
    """Create a label in a project."""
    label = await service.create_label(db, user, project, payload)
    await db.commit()
    return label


@router.get("/projects/{project_id}/labels", response_model=Page[LabelOut])
async def list_labels(project: MemberProject, db: DbSession, page: PageParams) -> dict[str, Any]:
    """List the labels of a project."""
    labels = select(Label).where(Label.project_id == project.id)
    return await fetch_page(db, labels, Label.id, page)


@router.patch(
    "/projects/{project_id}/labels/{label_id}",
    response_model=LabelOut,
    dependencies=[CanWork],
)
async def update_label(
    label_id: Id,
    patch: LabelPatch,
    project: WritableProject,
    user: CurrentUser,
    db: DbSession,
) -> Label:
    """Rename or recolour a label."""
    label = await service.get_label(db, project.id, label_id)
    service.update_label(db, user, label, patch)
    await db.commit()
    return label


@router.delete(
    "/projects/{project_id}/labels/{label_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[CanWork],
)
async def delete_label(
    label_id: Id,
    project: WritableProject,
    user: CurrentUser,
    db: DbSession,
) -> None:
    """Delete a label."""
    await service.delete_label(db, user, await service.get_label(db, project.id, label_id))
    await db.commit()


@router.put(
    "/tasks/{task_id}/labels/{label_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[CanWork],
)
async def attach_label(label_id: Id, task: WritableTask, user: CurrentUser, db: DbSession) -> None:
    """Put a label of the same project on a task."""
    label = await service.get_label(db, task.project_id, label_id)
    await service.attach(db, user, task, label)
    await db.commit()


@router.delete(
    "/tasks/{task_id}/labels/{label_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[CanWork],
)
async def detach_label(label_id: Id, task: WritableTask, user: CurrentUser, db: DbSession) -> None:
    """Take a label off a task."""
    label = await service.get_label(db, task.project_id, label_id)
    await service.detach(db, user, task, label)
    await db.commit()
