"""Projects, and the tasks, labels and comments in them."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Index,
    Table,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import Base
from app.models.enums import TaskPriority, TaskStatus, native_enum

task_labels = Table(
    "task_labels",
    Base.metadata,
    Column("task_id", ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column("label_id", ForeignKey("labels.id", ondelete="CASCADE"), primary_key=True, index=True),
)


class Project(Base):
    """A team's list of tasks."""

    __tablename__ = "projects"
    __table_args__ = (UniqueConstraint("team_id", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    # RESTRICT: a team's work must not disappear because somebody deleted the team.
    team_id: Mapped[int] = mapped_column(ForeignKey("teams.id", ondelete="RESTRICT"))
    key: Mapped[str]
    name: Mapped[str]
    description: Mapped[str] = mapped_column(server_default="")
    archived_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Label(Base):
    """A tag for the tasks of one project."""

    __tablename__ = "labels"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    name: Mapped[str]
    color: Mapped[str] = mapped_column(server_default="#808080")


class Task(Base):
    """One piece of work, at a place of its own in the order of its project."""

    __tablename__ = "tasks"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    title: Mapped[str]
    description: Mapped[str] = mapped_column(server_default="")
    status: Mapped[TaskStatus] = mapped_column(
        native_enum(TaskStatus, "task_status"),
        server_default=TaskStatus.TODO.value,
    )
    priority: Mapped[TaskPriority] = mapped_column(
        native_enum(TaskPriority, "task_priority"),
        server_default=TaskPriority.NORMAL.value,
    )
    position: Mapped[int]
    version: Mapped[int] = mapped_column()
    assignee_id: Mapped[int | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"),
        index=True,
    )
    start_date: Mapped[date | None]
    due_date: Mapped[date | None]
    external_ref: Mapped[str | None]
    custom_fields: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    # Spelled as PostgreSQL prints it back, or `alembic check` would see a change on every run.
    search: Mapped[str] = mapped_column(
        TSVECTOR,
        Computed(
            "to_tsvector('english'::regconfig, ((title || ' '::text) || description))",
            persisted=True,
        ),
        deferred=True,
    )

    project: Mapped[Project] = relationship(lazy="raise")
    labels: Mapped[list[Label]] = relationship(
        secondary=task_labels,
        lazy="selectin",
        order_by=Label.name,
        passive_deletes=True,
    )

    __table_args__ = (
        # Deferred, so that shifting a run of tasks by one may pass through duplicates.
        UniqueConstraint("project_id", "position", deferrable=True, initially="DEFERRED"),
        UniqueConstraint("project_id", "external_ref"),
        CheckConstraint("position >= 1", name="position_from_one"),
        CheckConstraint("due_date >= start_date", name="due_not_before_start"),
        Index(None, "search", postgresql_using="gin"),
        Index(
            None,
            "custom_fields",
            postgresql_using="gin",
            postgresql_ops={"custom_fields": "jsonb_path_ops"},
        ),
    )
    # eager_defaults: an async session cannot fetch `updated_at` later, while answering.
    __mapper_args__ = {  # noqa: RUF012 - SQLAlchemy declares the attribute and reads it once
        "version_id_col": version,
        "eager_defaults": True,
    }


class Comment(Base):
    """What somebody said about a task; it outlives its author's account."""

    __tablename__ = "comments"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), index=True)
    author_id: Mapped[int | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"),
        index=True,
    )
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    edited_at: Mapped[datetime | None]
