"""Tables that are Pydantic models too."""

from sqlmodel import Field, SQLModel


class Role(SQLModel, table=True):
    """A role."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)


class User(SQLModel, table=True):
    """A user."""

    id: int | None = Field(default=None, primary_key=True)
    email: str = Field(unique=True)
