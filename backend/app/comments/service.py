"""Comments and the notifications they cause."""

import re
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.service import record
from app.comments.schemas import CommentPatch
from app.db import SessionLocal
from app.errors import ForbiddenError
from app.models import Comment, Job, Project, Task, TeamMember, User
from app.roles import Permission

MENTION = re.compile(r"(?<!\S)@([^@\s]+@[^@\s]+\.\w+)")


async def create_comment(db: AsyncSession, actor: User, task: Task, body: str) -> Comment:
    """Comment on a task."""
    comment = Comment(task_id=task.id, author_id=actor.id, body=body)
    db.add(comment)
    await db.flush()
    record(db, actor, "create", "comment", comment.id, task_id=task.id)
    return comment


def edit_comment(db: AsyncSession, actor: User, comment: Comment, patch: CommentPatch) -> None:
    """Reword one's own comment; moderators may delete, but never put words into a mouth."""
    if comment.author_id != actor.id:
        raise ForbiddenError("only the author may edit a comment")
    if patch.apply(comment):
        comment.edited_at = datetime.now(UTC)
        record(db, actor, "update", "comment", comment.id, task_id=comment.task_id)


async def delete_comment(db: AsyncSession, actor: User, comment: Comment) -> None:
    """Delete one's own comment, or anybody's as a moderator."""
    if comment.author_id != actor.id and not actor.may(Permission.MODERATE):
        raise ForbiddenError("only the author or a moderator may delete a comment")
    record(db, actor, "delete", "comment", comment.id, task_id=comment.task_id)
    await db.delete(comment)


async def notify_mentioned(comment_id: int) -> None:
    """Queue a notification for every team member whom the comment mentions as `@email`.

    Runs after the answer, when the session of the request is no longer to be used.
    """
    async with SessionLocal() as db:
        comment = await db.get(Comment, comment_id)
        if comment is None:
            return
        emails = {email.lower() for email in MENTION.findall(comment.body)}
        if not emails:
            return
        mentioned = await db.scalars(
            select(User.id)
            .join(TeamMember, TeamMember.user_id == User.id)
            .join(Project, Project.team_id == TeamMember.team_id)
            .join(Task, Task.project_id == Project.id)
            .where(Task.id == comment.task_id, func.lower(User.email).in_(emails))
            .order_by(User.id),
        )
        db.add_all(
            Job(kind="notify", payload={"comment_id": comment.id, "user_id": user_id})
            for user_id in mentioned
            if user_id != comment.author_id
        )
        await db.commit()
