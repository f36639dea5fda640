"""fastapi-conftest, by the conftest of a project that has no application and no users."""

from collections.abc import AsyncIterator

import fastapi_conftest as fc
import pytest
import pytest_asyncio
from fastapi_conftest import pytest_plugin_registered  # noqa: F401 - a hook; keep this line
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from benchmark.rivals.neutral.models import Base

SessionLocal = async_sessionmaker()
fc.isolate(None, sessions=[SessionLocal], metadata=Base.metadata)


@pytest_asyncio.fixture(scope="session")
async def engine() -> AsyncIterator[AsyncEngine]:
    """An engine, on this worker's own clone of the schema."""
    template = await fc.schema_once()
    async with fc.clone_for_this_worker(template) as worker:
        yield worker.engine


@pytest_asyncio.fixture
async def db_transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """The test's transaction, always rolled back; a commit is a savepoint in it."""
    transaction = await fc.begin_with_savepoint(engine)
    yield transaction.connection
    await transaction.roll_back()


@pytest_asyncio.fixture
async def override_get_db(db_transaction: AsyncConnection) -> AsyncIterator[None]:
    """All sessions work in the test's transaction."""
    async with fc.sessions_in(db_transaction):
        yield


@pytest.fixture
def sessions(override_get_db: None) -> async_sessionmaker[AsyncSession]:
    """The application's session factory, as it is."""
    return SessionLocal


@pytest_asyncio.fixture
async def session(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """The session of a test."""
    async with sessions() as session:
        with fc.selecting_anew(session):
            yield session
