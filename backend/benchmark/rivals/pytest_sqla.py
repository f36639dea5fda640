"""pytest-sqla: each test in a transaction that is rolled back, as SQLAlchemy's recipe advises.

Given an empty database, the metadata, and a session-wide event loop, with which it keeps a pool
of connections; on the default loop, a new one a test, it connects anew for each.

https://github.com/sqla-native/pytest-sqla#async-details (the pool)
https://github.com/sqla-native/pytest-sqla#using-it-with-database-fixtures (the database)
"""

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from benchmark.rivals.neutral.models import Base

pytest_plugins = ["benchmark.rivals.common"]


class Overrides:
    """What a project's conftest would override; here it has to come after pytest-sqla itself."""

    @pytest.fixture(scope="session")
    @classmethod
    def sqla_url(cls, database_url: URL) -> URL:
        """The database in which pytest-sqla creates the tables, and which it works on."""
        return database_url

    @pytest.fixture(scope="session")
    @classmethod
    def sqla_metadata(cls) -> type[Base]:
        """What it creates the tables from."""
        return Base


def pytest_configure(config: pytest.Config) -> None:
    """Give pytest-sqla its database and its models."""
    config.pluginmanager.register(Overrides())


@pytest.fixture
def session(sqla_async_session: AsyncSession) -> AsyncSession:
    """Its own session, as it is."""
    return sqla_async_session


@pytest.fixture
def sessions(
    sqla_async_sessionmaker: async_sessionmaker[AsyncSession],
) -> async_sessionmaker[AsyncSession]:
    """Its own session factory, as it is."""
    return sqla_async_sessionmaker
