"""Types that the schemas of several domains share."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# The end of a PostgreSQL integer: beyond it the driver fails where a client should hear 422.
MAX_ID = 2_147_483_647
Id = Annotated[int, Field(ge=1, le=MAX_ID)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Description = Annotated[str, StringConstraints(max_length=10_000)]
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


class Patch(Input):
    """Changes to a row: what is left out stays, and null is for what can be empty."""

    def apply(self, row: object) -> dict[str, Any]:
        """Change `row`, and return what is different now, as JSON."""
        given = self.model_dump(exclude_unset=True)
        changed = {field for field, value in given.items() if getattr(row, field) != value}
        for field in changed:
            setattr(row, field, given[field])
        return self.model_dump(mode="json", include=changed)


def optional() -> Any:
    """Return the default of a field that a patch may leave out, but not set to null."""
    return Field(default_factory=lambda: None)


class Output(BaseModel):
    """A response body, read from a model's attributes."""

    model_config = ConfigDict(from_attributes=True)
