"""fastapi-conftest, by the conftest of a project that has no application and no users."""

from collections.abc import AsyncIterator

import pytest_asyncio
from fastapi_conftest import (
    begin_with_savepoint,
    clone_for_this_worker,
    isolate,
    pytest_plugin_registered,  # noqa: F401 - a hook, which pytest finds here
    schema_once,
    selecting_anew,
    sessions_in,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from benchmark.rivals.neutral.models import Base

SessionLocal = async_sessionmaker()
isolate(None, sessions=[SessionLocal], metadata=Base.metadata)


@pytest_asyncio.fixture(scope="session")
async def engine() -> AsyncIterator[AsyncEngine]:
    """An engine, on this worker's own clone of the schema."""
    template = await schema_once()
    async with clone_for_this_worker(template) as clone:
        yield clone.engine


@pytest_asyncio.fixture
async def db_transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """The test's transaction, always rolled back; a commit is a savepoint in it."""
    transaction = await begin_with_savepoint(engine)
    yield transaction.connection
    await transaction.roll_back()


@pytest_asyncio.fixture
async def override_get_db(db_transaction: AsyncConnection) -> AsyncIterator[None]:
    """All sessions work in the test's transaction."""
    async with sessions_in(db_transaction):
        yield


@pytest_asyncio.fixture
async def session(override_get_db: None) -> AsyncIterator[AsyncSession]:
    """The session of a test."""
    async with SessionLocal() as session:
        with selecting_anew(session):
            yield session
