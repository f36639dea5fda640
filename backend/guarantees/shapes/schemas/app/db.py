"""Tables in schemas of their own."""

from collections.abc import AsyncIterator

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/production")
SessionLocal = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """The base of all models."""

    metadata = MetaData(schema="people")


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give a request its session."""
    async with SessionLocal() as session:
        yield session
