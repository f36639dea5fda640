"""Types that the schemas of several domains share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# The range of a PostgreSQL integer: beyond it the driver fails where a client should hear 422.
Id = Annotated[int, Field(ge=1, le=2_147_483_647)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Email = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True,
        max_length=254,
        pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
    ),
]


class Input(BaseModel):
    """A request body; a misspelt field is an error, not silence."""

    model_config = ConfigDict(extra="forbid")


class Output(BaseModel):
    """A response body, read from a model's attributes."""

    model_config = ConfigDict(from_attributes=True)
