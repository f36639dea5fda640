"""Bodies of teams and memberships."""

from datetime import datetime
from typing import Annotated

from pydantic import AliasPath, Field, StringConstraints

from app.models import TeamRole
from app.schemas import Id, Input, Name, Output, Patch, optional

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=50)]


class TeamIn(Input):
    """A new team."""

    name: Name
    slug: Slug


class TeamPatch(Patch):
    """Changes to a team."""

    name: Name = optional()
    slug: Slug = optional()


class TeamOut(Output):
    """A team."""

    id: int
    name: str
    slug: str
    created_at: datetime


class MemberIn(Input):
    """Somebody to add to a team."""

    user_id: Id
    role: TeamRole = TeamRole.MEMBER


class MemberPatch(Patch):
    """Changes to a member."""

    role: TeamRole = optional()


class MemberOut(Output):
    """A member of a team."""

    user_id: int
    email: str = Field(validation_alias=AliasPath("user", "email"))
    role: TeamRole
    joined_at: datetime
