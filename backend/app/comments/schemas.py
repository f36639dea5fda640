"""Bodies of comments."""

from datetime import datetime
from typing import Annotated

from pydantic import StringConstraints

from app.schemas import Input, Output, Patch, optional

Body = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000)]


class CommentIn(Input):
    """What somebody says."""

    body: Body


class CommentPatch(Patch):
    """Changes to a comment."""

    body: Body = optional()


class CommentOut(Output):
    """A comment."""

    id: int
    task_id: int
    author_id: int | None
    body: str
    created_at: datetime
    edited_at: datetime | None
