"""Bodies of teams and memberships."""

from datetime import datetime
from typing import Annotated

from pydantic import AliasPath, Field, StringConstraints

from app.models import TeamRole
from app.schemas import Id, Input, Name, Output

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=50)]


class TeamIn(Input):
    """A new team."""

    name: Name
    slug: Slug


class TeamPatch(Input):
    """Changes to a team."""

    name: Name | None = None
    slug: Slug | None = None


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


class MemberPatch(Input):
    """A member's new role."""

    role: TeamRole


class MemberOut(Output):
    """A member of a team."""

    user_id: int
    email: str = Field(validation_alias=AliasPath("user", "email"))
    role: TeamRole
    joined_at: datetime
