"""The second database: who did what."""

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/audit")
SessionLocal = async_sessionmaker(engine)


class Base(DeclarativeBase):
    """The base of all models of this database."""


class Entry(Base):
    """Something that was done."""

    __tablename__ = "entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]


async def note_down(what: str) -> None:
    """Write an entry."""
    async with SessionLocal() as session:
        session.add(Entry(what=what))
        await session.commit()
