"""What the rivals share: one event loop for all tests, and an empty database of the run's own."""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


def pytest_configure(config: pytest.Config) -> None:
    """Run all tests and fixtures on one event loop, as our conftest does.

    It is the fastest setting for each rival: a pool, or a server, can be kept from test to test.
    """
    loops, getini = (
        ("asyncio_default_fixture_loop_scope", "asyncio_default_test_loop_scope"),
        config.getini,
    )
    setattr(config, "getini", lambda name: "session" if name in loops else getini(name))  # noqa: B010 - mypy


@pytest_asyncio.fixture(scope="session")
async def database_url() -> AsyncIterator[URL]:
    """An empty database on the server, for rivals that want to be given one."""
    name = f"rival_{os.getpid()}"
    server = make_url(os.environ["TEST_DATABASE_URL"])
    admin = create_async_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with admin.connect() as connection:
        await connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield server.set(database=name)
    async with admin.connect() as connection:
        await connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
