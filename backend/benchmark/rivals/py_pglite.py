"""py-pglite: PostgreSQL compiled to WebAssembly, in Node.js; all tables truncated before each test.

With the async SQLAlchemy fixtures that it brings. They use psycopg, and a server of their own on
PGlite's one connection. Its folder is kept, so that `npm install` is not in each run's time.

https://github.com/wey-gu/py-pglite#advanced (the folder)
https://github.com/wey-gu/py-pglite/blob/main/src/py_pglite/sqlalchemy/fixtures.py (the fixtures)
"""

import sys
from pathlib import Path

import pytest
import pytest_asyncio
from py_pglite import PGliteConfig
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from benchmark.rivals.neutral.models import Base

pytest_plugins = ["benchmark.rivals.common"]

FOLDER = Path(sys.prefix, "py-pglite")


class Overrides:
    """What a project's conftest would override; here it has to come after py-pglite itself."""

    @pytest.fixture(scope="session")
    @classmethod
    def pglite_config(cls) -> PGliteConfig:
        """Its settings. The socket's path is written into the folder once, so it is fixed, too."""
        return PGliteConfig(work_dir=FOLDER, socket_path=str(FOLDER / ".s.PGSQL.5432"))


def pytest_configure(config: pytest.Config) -> None:
    """Give py-pglite its settings, and bear that it leaves the server's output open."""
    config.pluginmanager.register(Overrides())
    config.addinivalue_line("filterwarnings", "ignore:unclosed file:ResourceWarning")


@pytest_asyncio.fixture(scope="session")
async def tables(pglite_async_engine: AsyncEngine) -> None:
    """The tables, created once."""
    async with pglite_async_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


@pytest.fixture
def session(tables: None, pglite_async_session: AsyncSession) -> AsyncSession:
    """Its own session, as it is."""
    return pglite_async_session


@pytest.fixture
def sessions(
    tables: None, pglite_async_session: AsyncSession, pglite_async_engine: AsyncEngine
) -> async_sessionmaker[AsyncSession]:
    """Sessions on its engine; its own session is what truncates the tables."""
    return async_sessionmaker(pglite_async_engine)
