"""What is shown of a user, and what may be changed."""

from datetime import datetime

from pydantic import AliasPath, Field

from app.roles import RoleName
from app.schemas import Output, Patch, optional


class UserOut(Output):
    """An account, without its secrets."""

    id: int
    email: str
    full_name: str
    role: str = Field(validation_alias=AliasPath("role", "name"))
    is_active: bool
    created_at: datetime


class UserPatch(Patch):
    """Changes by an administrator."""

    role: RoleName = optional()
    is_active: bool = optional()
