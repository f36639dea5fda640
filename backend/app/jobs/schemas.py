"""Bodies of jobs."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, JsonValue, StringConstraints

from app.models import JobStatus
from app.pagination import PageQuery
from app.schemas import Input, Output


class JobIn(Input):
    """Work for later."""

    kind: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=50)]
    payload: dict[str, JsonValue] = Field(default_factory=dict)


class FailureIn(Input):
    """Why an attempt failed."""

    error: Annotated[str, StringConstraints(min_length=1, max_length=2_000)]


class JobQuery(PageQuery):
    """Filters of the queue."""

    status: JobStatus | None = None
    kind: str | None = None


class JobOut(Output):
    """A job."""

    id: int
    kind: str
    payload: dict[str, JsonValue]
    status: JobStatus
    attempts: int
    last_error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
