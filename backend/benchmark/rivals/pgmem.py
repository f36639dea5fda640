"""pgmem: a PostgreSQL in memory, as one program; each test has a fork of its state.

By `pgmem_dsn`, as its page advises. `pgmem_live_db`, which resets one fork and so keeps the pool of
connections, took as long.
"""

import warnings
from collections.abc import AsyncIterator

import pgmem
import pytest
import pytest_asyncio
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmark.rivals.neutral.models import Base

pytest_plugins = ["benchmark.rivals.common"]


def url_of(dsn: str, driver: str) -> URL:
    """Return the address of a server of pgmem, for a driver of SQLAlchemy."""
    return make_url(dsn).set(drivername=f"postgresql+{driver}", query={})


class Overrides:
    """What a project's conftest would override; here it has to come after pgmem itself."""

    @pytest.fixture(scope="session")
    @classmethod
    def pgmem_snapshot(cls, pgmem_server: pgmem.Server) -> pgmem.Snapshot:
        """The state that each test finds: the tables, empty."""
        engine = create_engine(url_of(pgmem_server.dsn, "psycopg"))
        Base.metadata.create_all(engine)
        engine.dispose()
        return pgmem_server.snapshot()


def pytest_configure(config: pytest.Config) -> None:
    """Give pgmem its tables, and bear that it leaves its program's output open."""
    config.pluginmanager.register(Overrides())
    warnings.filterwarnings("ignore", "unclosed file", ResourceWarning)


@pytest_asyncio.fixture
async def sessions(pgmem_dsn: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions on the test's own fork."""
    engine = create_async_engine(url_of(pgmem_dsn, "asyncpg"))
    yield async_sessionmaker(engine)
    await engine.dispose()


@pytest_asyncio.fixture
async def session(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """The session of a test."""
    async with sessions() as session:
        yield session
