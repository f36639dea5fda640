"""Values that PostgreSQL keeps as native enum types."""

from enum import StrEnum

from sqlalchemy import Enum


class TeamRole(StrEnum):
    """What a member may do in a team."""

    OWNER = "owner"
    MEMBER = "member"


class TaskStatus(StrEnum):
    """Where a task stands."""

    TODO = "todo"
    IN_PROGRESS = "in_progress"
    DONE = "done"
    CANCELLED = "cancelled"


class TaskPriority(StrEnum):
    """How urgent a task is."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


def native_enum(enum: type[StrEnum], name: str) -> Enum:
    """Store the values of `enum` rather than its member names, which SQLAlchemy would."""
    return Enum(enum, name=name, values_callable=lambda members: [m.value for m in members])
