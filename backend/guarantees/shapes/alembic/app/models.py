"""The tables; the schema itself is what the migrations make."""

from datetime import datetime

from sqlalchemy import FetchedValue, ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Role(Base):
    """A role."""

    __tablename__ = "roles"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)


class User(Base):
    """A user, whose changes a trigger dates."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(Text, unique=True)
    desk: Mapped[int | None]
    role_id: Mapped[int | None] = mapped_column(ForeignKey("roles.id"))
    changed_at: Mapped[datetime | None] = mapped_column(server_default=FetchedValue())
