"""The old conftest: every test drops all tables, creates them, creates the roles, connects anew.

This is what many FastAPI projects have today, and an honest opponent: the same server with the same
settings, the same cheap password hashing, the same builders, nothing slowed down on purpose. As old
conftests do, it overrides `get_db` with a function of its own. That has a price: with an override,
FastAPI analyses the dependencies of a route anew for each request.

Run the same tests under it: pytest --noconftest -p benchmark.before backend/tests
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from app import security
from app.db import Base, SessionLocal, get_db
from app.main import app as application
from app.models import User
from app.roles import setup_roles
from benchmark.server import create_database, drop_database, server_url
from tests import factories

security.password_hasher = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))


def pytest_configure(config: pytest.Config) -> None:
    """Accept the new conftest's marker, which changes nothing here."""
    config.addinivalue_line("markers", "fresh_database: no different from any other test")


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """A database for this run, so that two runs at once do not drop each other's tables."""
    server = server_url()
    name = f"before_{os.getpid()}"
    url = asyncio.run(create_database(server, name))
    yield url.render_as_string(hide_password=False)
    asyncio.run(drop_database(server, name))


@pytest_asyncio.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A new engine, on tables that were dropped and created for this test."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def roles(engine: AsyncEngine) -> None:
    """The roles, created for this test."""
    async with AsyncSession(engine) as session:
        await setup_roles(session)


@pytest.fixture
def get_db_session(engine: AsyncEngine, roles: None) -> Iterator[async_sessionmaker[AsyncSession]]:
    """The app's session factory, on this test's engine."""
    before = dict(SessionLocal.kw)
    SessionLocal.configure(bind=engine)
    yield SessionLocal
    SessionLocal.kw = before


@pytest_asyncio.fixture
async def db(get_db_session: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """The test's own session."""
    async with get_db_session() as session:
        yield session


@pytest.fixture
def override_get_db(
    get_db_session: async_sessionmaker[AsyncSession],
) -> Callable[[], AsyncIterator[AsyncSession]] | None:
    """What requests get in the place of the app's own get_db; None leaves them that one."""

    async def session_of_the_request() -> AsyncIterator[AsyncSession]:
        async with get_db_session() as session:
            yield session

    return session_of_the_request


@pytest.fixture
def app(override_get_db: Callable[[], AsyncIterator[AsyncSession]] | None) -> Iterator[FastAPI]:
    """The application; overrides made by the test end with it."""
    before = dict(application.dependency_overrides)
    if override_get_db:
        application.dependency_overrides[get_db] = override_get_db
    yield application
    application.dependency_overrides = before


@pytest_asyncio.fixture
async def client_factory(app: FastAPI) -> AsyncIterator[Callable[..., AsyncClient]]:
    """A function that returns an HTTP client: a given user's, or nobody's."""
    async with AsyncExitStack() as clients:

        def client_for(user: User | None = None) -> AsyncClient:
            token = security.create_access_token(user.id) if user else ""
            headers = {"Authorization": f"Bearer {token}"} if user else {}
            client = AsyncClient(
                transport=ASGITransport(app), base_url="http://test", headers=headers
            )
            clients.push_async_callback(client.aclose)
            return client

        yield client_for


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
