"""The tables."""

from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Note(Base):
    """A note; no two say the same."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(unique=True)
