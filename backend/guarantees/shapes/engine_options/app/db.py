"""An engine behind a transaction pooler: no prepared statements, no pool, settings by a listener."""

from collections.abc import AsyncIterator

from sqlalchemy import NullPool, event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

CONNECT_ARGS = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}

engine = create_async_engine(
    "postgresql+asyncpg://nobody@127.0.0.1:1/production",
    connect_args=CONNECT_ARGS,
    poolclass=NullPool,
)
SessionLocal = async_sessionmaker(engine, expire_on_commit=False)


@event.listens_for(engine.sync_engine, "connect")
def on_connect(connection, _record):
    """Show times as they are in Tokyo."""
    cursor = connection.cursor()
    cursor.execute("SET TIME ZONE 'Asia/Tokyo'")
    cursor.close()


class Base(DeclarativeBase):
    """The base of all models."""


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give a request its session."""
    async with SessionLocal() as session:
        yield session
