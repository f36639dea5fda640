"""The fixtures of this suite: each test gets a clean PostgreSQL database, by one ROLLBACK."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from app import db as database
from app.main import app as application

sys.path.append(str(Path(__file__).parent))  # so that any import mode finds the folder
import fastapi_conftest as fc  # the folder beside this file; do not edit it
from fastapi_conftest import pytest_plugin_registered  # noqa: F401 - a hook; keep this line

SessionLocal = async_sessionmaker(database.engine, expire_on_commit=False)
fc.isolate(application, sessions=[SessionLocal], metadata=database.Base.metadata)


@pytest_asyncio.fixture(scope="session")
async def engine() -> AsyncIterator[AsyncEngine]:
    """The app's engine, on this worker's own clone of the schema."""
    template = await fc.schema_once()
    async with fc.clone_for_this_worker(template) as worker:
        yield worker.engine


@pytest_asyncio.fixture
async def db_transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """The test's transaction, which is rolled back; a commit of the app only moves its savepoint."""
    transaction = await fc.begin_with_savepoint(engine)
    yield transaction.connection
    await transaction.roll_back()


@pytest_asyncio.fixture
async def override_get_db(db_transaction: AsyncConnection) -> AsyncIterator[None]:
    """The app's own get_db, and all else on its engines, works in the test's transaction."""
    async with fc.sessions_in(db_transaction):
        yield


@pytest.fixture
def get_db_session(override_get_db: None) -> async_sessionmaker[AsyncSession]:
    """A session factory on the app's engine; what its sessions commit is gone after the test."""
    return SessionLocal


@pytest_asyncio.fixture
async def db(get_db_session: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """The test's own session. No request shares it: commit before a request."""
    async with get_db_session() as session:
        with fc.selecting_anew(session):
            yield session


@pytest.fixture
def app(override_get_db: None) -> FastAPI:
    """The application, on the test's database."""
    return application


@pytest.fixture
def client(app: FastAPI) -> AsyncClient:
    """An HTTP client."""
    return AsyncClient(transport=ASGITransport(fc.as_served(app)), base_url="http://test")


@pytest.fixture
def test_engine(engine: AsyncEngine) -> AsyncEngine:
    """The name under which the tests know the engine that they put into app.db."""
    return engine
