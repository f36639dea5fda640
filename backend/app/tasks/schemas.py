"""Bodies of tasks."""

from datetime import date, datetime
from typing import Annotated

from pydantic import Field, JsonValue, StringConstraints

from app.labels.schemas import LabelOut
from app.models import TaskPriority, TaskStatus
from app.pagination import PageQuery
from app.schemas import Description, Id, Input, Output, Patch, optional

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
ExternalRef = Annotated[str, StringConstraints(min_length=1, max_length=100)]
CustomFields = Annotated[dict[str, JsonValue], Field(max_length=50)]


class TaskIn(Input):
    """A new task; it goes to the end of the project."""

    title: Title
    description: Description = ""
    priority: TaskPriority = TaskPriority.NORMAL
    start_date: date | None = None
    due_date: date | None = None
    external_ref: ExternalRef | None = None
    custom_fields: CustomFields = Field(default_factory=dict)


class TaskCreate(TaskIn):
    """A new task, perhaps with somebody to do it."""

    assignee_id: Id | None = None


class TaskPatch(Patch):
    """Changes to the version of a task that the client has read."""

    version: int
    title: Title = optional()
    description: Description = optional()
    priority: TaskPriority = optional()
    start_date: date | None = None
    due_date: date | None = None
    external_ref: ExternalRef | None = None
    custom_fields: CustomFields = optional()


class StatusIn(Input):
    """Where the task should stand."""

    status: TaskStatus


class MoveIn(Input):
    """The place the task should have; beyond the end means the end."""

    position: Id


class AssignIn(Input):
    """Who should do the task; null means nobody."""

    assignee_id: Id | None


class ImportIn(Input):
    """Tasks to create, each for itself."""

    rows: Annotated[list[TaskIn], Field(min_length=1, max_length=500)]


class TaskQuery(PageQuery):
    """Filters of a project's tasks."""

    status: TaskStatus | None = None
    assignee: Id | None = Field(default=None, description="id of the assignee")
    label: str | None = Field(default=None, description="name of a label")
    q: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        default=None,
        description='words in title or description; "quoted phrase", -without',
    )
    field: Annotated[str, StringConstraints(pattern=r"^[^:]+:.+$")] | None = Field(
        default=None,
        description="key:value in custom_fields",
    )


class TaskOut(Output):
    """A task."""

    id: int
    project_id: int
    title: str
    description: str
    status: TaskStatus
    priority: TaskPriority
    position: int
    version: int
    assignee_id: int | None
    start_date: date | None
    due_date: date | None
    external_ref: str | None
    custom_fields: dict[str, JsonValue]
    labels: list[LabelOut]
    created_at: datetime
    updated_at: datetime


class ImportedOut(Output):
    """A row that became a task."""

    row: int
    task_id: int


class RefusedOut(Output):
    """A row that did not, and why."""

    row: int
    reason: str


class ImportOut(Output):
    """What became of each row, counted from 0."""

    created: list[ImportedOut]
    failed: list[RefusedOut]


class StatsOut(Output):
    """How many tasks stand where."""

    total: int
    by_status: dict[TaskStatus, int]
