"""Twelve tables: two that the tests write to, ten that a way of cleaning up has to deal with."""

from sqlalchemy import Column, ForeignKey, Integer, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """The declarative base; its metadata is the whole schema."""


class Author(Base):
    """An author; no two have the same name."""

    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    books: Mapped[list["Book"]] = relationship()


class Book(Base):
    """A book by an author."""

    __tablename__ = "book"

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"), index=True)
    title: Mapped[str] = mapped_column(String(100), index=True)


for number in range(10):
    Table(
        f"note_{number}",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("book_id", ForeignKey("book.id"), index=True),
        Column("text", String(1000), nullable=False),
    )
