"""The database layer, on psycopg 3."""

from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

# Nobody listens there: whoever reaches this engine in a test has gone past the conftest.
engine = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/production")
SessionLocal = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """The base of all models."""


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give a request its session; roll back what it did not commit."""
    async with SessionLocal() as session:
        yield session
