"""Keyset pagination: pages that stay cheap, and stable where the keys of the other rows do.

Tasks are paged by their position, which moves when one before them is moved or deleted: a reader
who pages meanwhile may miss a task.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field, field_validator
from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.schemas import MAX_ID, Output

T = TypeVar("T")


class PageQuery(BaseModel):
    """The query parameters of every paginated list."""

    limit: int = Field(default=20, ge=1, le=100)
    cursor: str | None = Field(default=None, description="next_cursor of the previous page")

    @field_validator("cursor")
    @classmethod
    def _must_decode(cls, cursor: str | None) -> str | None:
        if cursor is not None:
            decode_cursor(cursor)
        return cursor

    def filters(self) -> dict[str, Any]:
        """Return what the list is filtered by: the parameters of the subclass that are given."""
        return self.model_dump(exclude={*PageQuery.model_fields}, exclude_none=True)


class Page(Output, Generic[T]):
    """Some items and the way to the next ones; null means that there are none."""

    items: list[T]
    next_cursor: str | None


def encode_cursor(key: int) -> str:
    """Return an opaque cursor that points behind `key`."""
    return urlsafe_b64encode(f"after:{key}".encode()).decode()


def decode_cursor(cursor: str) -> int:
    """Return the key a cursor points behind; ValueError for what `encode_cursor` did not make."""
    prefix, _, key = urlsafe_b64decode(cursor.encode()).decode().partition(":")
    if prefix != "after" or not key.isdecimal() or int(key) > MAX_ID:
        message = "not a cursor"
        raise ValueError(message)
    return int(key)


async def fetch_page(
    db: AsyncSession,
    query: Select[T],
    by: InstrumentedAttribute[int],
    page: PageQuery,
    *,
    newest_first: bool = False,
) -> dict[str, Any]:
    """Return the items of `query` behind the cursor, in the order of `by`, which is unique."""
    if page.cursor is not None:
        after = decode_cursor(page.cursor)
        query = query.where(by < after if newest_first else by > after)
    query = query.order_by(by.desc() if newest_first else by.asc())
    # One row more than asked for tells whether another page follows, without counting.
    rows = list(await db.scalars(query.limit(page.limit + 1)))
    items = rows[: page.limit]
    more = len(rows) > page.limit
    return {
        "items": items,
        "next_cursor": encode_cursor(getattr(items[-1], by.key)) if more else None,
    }
