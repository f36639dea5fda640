"""An object that owns the engine, made by the lifespan."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """The base of all models."""


class DatabaseSessionManager:
    """Opens sessions on one engine."""

    def __init__(self, url: str) -> None:
        """Make the engine."""
        self.engine = create_async_engine(url)
        self.factory = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a session, and roll it back when it fails."""
        async with self.factory() as session:
            try:
                yield session
            except Exception:
                await session.rollback()
                raise


async def get_db(request: Request) -> AsyncIterator[AsyncSession]:
    """Give a request its session."""
    async with request.app.state.database.session() as session:
        yield session
