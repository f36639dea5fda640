"""The fixtures of this suite: each test gets a clean PostgreSQL database, by one ROLLBACK."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI
from httpx import ASGITransport, BaseTransport, Client, Request, Response
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from app.db import Base, SessionLocal
from app.main import app as application

sys.path.append(str(Path(__file__).parent))  # so that any import mode finds the folder
import fastapi_conftest as fc  # the folder beside this file; do not edit it
from fastapi_conftest import pytest_plugin_registered  # noqa: F401 - a hook; keep this line

fc.isolate(application, sessions=[SessionLocal], metadata=Base.metadata)

Run = Callable[[Awaitable[Any]], Any]


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
    """The app's own session factory; what its sessions commit is gone after the test."""
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


@pytest_asyncio.fixture(scope="session")
async def run() -> Run:
    """A function that awaits something for a synchronous test, such as `db.commit()`."""
    return asyncio.get_running_loop().run_until_complete


class OnTheLoop(BaseTransport):
    """Sends requests to an application on the event loop of the fixtures, without a thread."""

    def __init__(self, app: FastAPI, run: Run) -> None:
        """Begin with an application, and what awaits its answers."""
        self.transport, self.run = ASGITransport(fc.as_served(app)), run

    def handle_request(self, request: Request) -> Response:
        """Send a request, and wait for the answer."""
        response: Response = self.run(self.answer(request))
        return response

    async def answer(self, request: Request) -> Response:
        """Return the whole answer."""
        answer = await self.transport.handle_async_request(request)
        content = b"".join([part async for part in answer.aiter_raw()])
        return Response(answer.status_code, headers=answer.headers, content=content)


@pytest.fixture
def client(app: FastAPI, run: Run) -> Client:
    """An HTTP client for synchronous tests."""
    return Client(transport=OnTheLoop(app, run), base_url="http://test")
