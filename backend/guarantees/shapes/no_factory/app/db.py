"""Sessions that are made of the engine, without a factory."""

from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase

engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/production")


class Base(DeclarativeBase):
    """The base of all models."""


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give a request its session."""
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session
