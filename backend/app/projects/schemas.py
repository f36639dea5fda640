"""Bodies of projects."""

from datetime import datetime
from typing import Annotated

from pydantic import StringConstraints

from app.pagination import PageQuery
from app.schemas import Description, Input, Name, Output, Patch, optional

Key = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9]{1,9}$")]


class ProjectIn(Input):
    """A new project."""

    key: Key
    name: Name
    description: Description = ""


class ProjectPatch(Patch):
    """Changes to a project."""

    key: Key = optional()
    name: Name = optional()
    description: Description = optional()


class ProjectQuery(PageQuery):
    """Filters of the list of projects."""

    archived: bool | None = None


class ProjectOut(Output):
    """A project."""

    id: int
    team_id: int
    key: str
    name: str
    description: str
    archived_at: datetime | None
    created_at: datetime
