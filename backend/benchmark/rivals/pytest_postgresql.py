"""pytest-postgresql: a template database a run, and a clone of it for each test.

On the server that is there (`noproc`), the tables in its template (`load`). Its own example of a
SQLAlchemy session opens an engine without a pool; this one has its default pool, which saves each
test connecting again after its commit.

https://github.com/dbfixtures/pytest-postgresql#pre-populating-the-database-for-tests
https://github.com/dbfixtures/pytest-postgresql#using-sqlalchemy
"""

import os
from collections.abc import AsyncIterator

import pytest_asyncio
from psycopg import AsyncConnection
from pytest_postgresql import factories
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmark.rivals.neutral.models import Base

pytest_plugins = ["benchmark.rivals.common"]

SERVER = make_url(os.environ["TEST_DATABASE_URL"])


def create_tables(*, dbname: str, **_: object) -> None:
    """Create the tables in the template."""
    engine = create_engine(SERVER.set(drivername="postgresql+psycopg", database=dbname))
    Base.metadata.create_all(engine)
    engine.dispose()


template = factories.postgresql_noproc(
    host=SERVER.host or SERVER.query["host"],
    port=SERVER.port,
    user=SERVER.username,
    password=SERVER.password,
    dbname=f"rival_{os.getpid()}",
    load=[create_tables],
)
clone = factories.postgresql_async("template")


@pytest_asyncio.fixture
async def sessions(clone: AsyncConnection) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions on the test's own clone."""
    engine = create_async_engine(SERVER.set(database=clone.info.dbname))
    yield async_sessionmaker(engine)
    await engine.dispose()


@pytest_asyncio.fixture
async def session(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """The session of a test."""
    async with sessions() as session:
        yield session
