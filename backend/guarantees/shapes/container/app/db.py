"""An object that owns the engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """The base of all models."""


class Database:
    """Opens sessions on one engine."""

    def __init__(self, url: str) -> None:
        """Make the engine."""
        self.engine = create_async_engine(url)
        self.factory = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a session."""
        async with self.factory() as session:
            yield session


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give a request its session."""
    from app.containers import container

    async with container.database.session() as session:
        yield session
