"""The database layer: requests are asynchronous, commands and old endpoints are not."""

from collections.abc import AsyncIterator, Iterator

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/production")
SessionLocal = async_sessionmaker(engine, expire_on_commit=False)
sync_engine = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/production")
SyncSessionLocal = sessionmaker(sync_engine)


class Base(DeclarativeBase):
    """The base of all models."""


async def get_db() -> AsyncIterator[AsyncSession]:
    async with SessionLocal() as session:
        yield session


def get_sync_db() -> Iterator[Session]:
    with SyncSessionLocal() as session:
        yield session
