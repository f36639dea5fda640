"""The tables."""

from fastapi_users.db import SQLAlchemyBaseUserTableUUID
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Role(Base):
    """A role."""

    __tablename__ = "roles"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class User(SQLAlchemyBaseUserTableUUID, Base):
    """A user."""
