"""The tables."""

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Role(Base):
    """A role."""

    __tablename__ = "roles"
    __table_args__ = {"schema": "access"}
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class User(Base):
    """A user; no two may share a desk when a transaction ends."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("desk", deferrable=True, initially="DEFERRED"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    desk: Mapped[int | None]
    role_id: Mapped[int | None] = mapped_column(ForeignKey("access.roles.id"))
