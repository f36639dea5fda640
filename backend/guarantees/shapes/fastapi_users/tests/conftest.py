"""The fixtures of this suite: each test gets a clean PostgreSQL database, by one ROLLBACK."""

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from fastapi import FastAPI
from fastapi_users.jwt import generate_jwt
from fastapi_users.password import PasswordHelper
from httpx import ASGITransport, AsyncClient
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from app import main
from app.db import Base, async_session_maker
from app.main import app as application
from app.models import User
from app.roles import setup_roles
from tests import factories

sys.path.append(str(Path(__file__).parent))  # so that any import mode finds the folder
import fastapi_conftest as fc  # the folder beside this file; do not edit it
from fastapi_conftest import pytest_plugin_registered  # noqa: F401 - a hook; keep this line

fc.isolate(application, sessions=[async_session_maker], metadata=Base.metadata)

# Real argon2 at its cheapest: at production cost, hashing takes longer than the rest of a test.
CHEAP = PasswordHelper(PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),)))
main.password_helper = CHEAP

ClientFactory = Callable[["User | None"], AsyncClient]


@pytest_asyncio.fixture(scope="session")
async def engine() -> AsyncIterator[AsyncEngine]:
    """The app's engine, on this worker's own clone of the schema."""
    template = await fc.schema_once()
    async with fc.clone_for_this_worker(template) as worker:
        yield worker.engine


@pytest_asyncio.fixture(scope="session")
async def roles(engine: AsyncEngine) -> None:
    """The roles that every test finds, seeded in each clone."""
    await fc.seed_once(engine, setup_roles)


@pytest_asyncio.fixture
async def db_transaction(engine: AsyncEngine, roles: None) -> AsyncIterator[AsyncConnection]:
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
    return async_session_maker


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
def client_factory(app: FastAPI) -> ClientFactory:
    """A function that returns an HTTP client: a given user's, or nobody's."""

    def client_for(user: User | None = None) -> AsyncClient:
        headers = {}
        if user:
            claims = {"sub": str(user.id), "aud": "fastapi-users:auth"}
            headers["Authorization"] = f"Bearer {generate_jwt(claims, main.SECRET, 3600)}"
        transport = ASGITransport(fc.as_served(app))
        return AsyncClient(transport=transport, base_url="http://test", headers=headers)

    return client_for


@pytest.fixture
def client(client_factory: ClientFactory) -> AsyncClient:
    """An anonymous HTTP client."""
    return client_factory(None)


@pytest_asyncio.fixture
async def regular_user(db: AsyncSession) -> User:
    """A user who may log in."""
    return await factories.create_user(db)
