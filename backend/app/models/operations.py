"""The audit log and the job queue."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.enums import JobStatus, native_enum

MAX_ATTEMPTS = 3


class AuditEvent(Base):
    """Who did what to which row, kept after the row and the user are gone."""

    __tablename__ = "audit_events"
    __table_args__ = (Index(None, "entity", "entity_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    actor_id: Mapped[int | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"),
        index=True,
    )
    action: Mapped[str]
    entity: Mapped[str]
    entity_id: Mapped[int]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Job(Base):
    """Work for later, tried at most `MAX_ATTEMPTS` times."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"attempts BETWEEN 0 AND {MAX_ATTEMPTS}", name="attempts_in_range"),
        # Partial: the queue is short however many finished jobs pile up behind it.
        Index("ix_jobs_queued", "created_at", "id", postgresql_where=text("status = 'queued'")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    status: Mapped[JobStatus] = mapped_column(
        native_enum(JobStatus, "job_status"),
        server_default=JobStatus.QUEUED.value,
    )
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
