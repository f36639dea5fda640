"""Endpoints of comments."""

from typing import Any

from fastapi import APIRouter, BackgroundTasks, status
from sqlalchemy import select

from app.comments import service
from app.comments.schemas import CommentIn, CommentOut, CommentPatch
from app.deps import (
    CanWork,
    CurrentUser,
    DbSession,
    MemberTask,
    PageParams,
    WritableComment,
    WritableTask,
)
from app.models import Comment
from app.pagination import Page, fetch_page

router = APIRouter(tags=["comments"])


@router.post(
    "/tasks/{task_id}/comments",
    status_code=status.HTTP_201_CREATED,
    response_model=CommentOut,
    dependencies=[CanWork],
)
async def create_comment(
    payload: CommentIn,
    task: WritableTask,
    user: CurrentUser,
    db: DbSession,
    background: BackgroundTasks,
) -> Comment:
    """Comment on a task; members mentioned as `@email` are notified."""
    comment = await service.create_comment(db, user, task, payload.body)
    await db.commit()
    background.add_task(service.notify_mentioned, comment.id)
    return comment


@router.get("/tasks/{task_id}/comments", response_model=Page[CommentOut])
async def list_comments(task: MemberTask, db: DbSession, page: PageParams) -> dict[str, Any]:
    """List the comments on a task, oldest first."""
    comments = select(Comment).where(Comment.task_id == task.id)
    return await fetch_page(db, comments, Comment.id, page)


@router.patch("/comments/{comment_id}", response_model=CommentOut, dependencies=[CanWork])
async def edit_comment(
    patch: CommentPatch,
    comment: WritableComment,
    user: CurrentUser,
    db: DbSession,
) -> Comment:
    """Reword one's own comment."""
    service.edit_comment(db, user, comment, patch)
    await db.commit()
    return comment


@router.delete(
    "/comments/{comment_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[CanWork],
)
async def delete_comment(comment: WritableComment, user: CurrentUser, db: DbSession) -> None:
    """Delete one's own comment, or anybody's as a moderator."""
    await service.delete_comment(db, user, comment)
    await db.commit()
