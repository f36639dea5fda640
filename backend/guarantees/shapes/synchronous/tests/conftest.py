"""The fixtures of this suite: each test finds a clean PostgreSQL database, with real commits."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from fastapi.testclient import TestClient
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from app.db import Base, SessionLocal
from app.main import app as application

sys.path.append(str(Path(__file__).parent))  # for every way in which pytest imports this file
from fastapi_conftest import (
    as_served,
    begin_with_real_commits,
    clone_for_this_worker,
    isolate,
    pytest_plugin_registered,  # noqa: F401 - a hook, which pytest finds here
    schema_once,
    selecting_anew,
    sessions_in,
)

isolate(application, sessions=[SessionLocal], metadata=Base.metadata)


@pytest_asyncio.fixture(scope="session")
async def engine() -> AsyncIterator[Engine]:
    """The app's engine, on this worker's own clone of the schema."""
    template = await schema_once()  # built anew only when models or migrations have changed
    async with clone_for_this_worker(template) as clone:
        yield clone.engine


@pytest_asyncio.fixture
async def db_transaction(engine: Engine) -> AsyncIterator[Connection]:
    """A connection of the test's own; what it and the app commit is deleted after the test."""
    commits = await begin_with_real_commits(engine)
    yield commits.connection
    await commits.delete()


@pytest_asyncio.fixture
async def override_get_db(db_transaction: Connection) -> AsyncIterator[None]:
    """The app's own get_db, and all else on its engines, works on the test's database."""
    async with sessions_in(db_transaction):
        yield


@pytest.fixture
def db(override_get_db: None) -> Iterator[Session]:
    """The test's own session, to arrange and to assert. No request shares it."""
    with SessionLocal() as session, selecting_anew(session):
        yield session


@pytest.fixture
def client(override_get_db: None) -> Iterator[TestClient]:
    """An HTTP client of the application, whose lifespan it runs."""
    with TestClient(as_served(application)) as client:
        yield client
