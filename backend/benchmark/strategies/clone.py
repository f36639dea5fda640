"""On `once`: every test has a clone of the run's database, which is dropped after the test."""

from collections.abc import AsyncIterator
from itertools import count

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmark.server import server_url

NUMBERS = count()


@pytest.fixture(scope="session")
def server() -> sa.URL:
    """The server of the run."""
    return server_url()


@pytest_asyncio.fixture(scope="session")
async def admin(server: sa.URL, prepared_engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """The engine that creates and drops the clones."""
    await prepared_engine.dispose()  # a database that is in use cannot be cloned
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def engine(admin: AsyncEngine, prepared_engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """A new engine, on a clone that was made for this test."""
    template = prepared_engine.url
    name = f"{template.database}_{next(NUMBERS)}"
    async with admin.connect() as connection:
        await connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template.database}"))
    engine = create_async_engine(template.set(database=name))
    yield engine
    await engine.dispose()
    async with admin.connect() as connection:
        await connection.execute(sa.text(f"DROP DATABASE {name}"))
