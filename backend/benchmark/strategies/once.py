"""On `before`: the schema and the roles are created once a run, in the database of that run.

What empties the other tables before each test is in the plugin that comes after this one. Requests
get the app's own `get_db`, so that no strategy pays for an override, as ours does not.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from app.db import Base
from app.roles import setup_roles

ROLES = [Base.metadata.tables[name] for name in ("roles", "permissions", "role_permissions")]
OTHERS = [table for table in Base.metadata.sorted_tables if table not in ROLES]


@pytest_asyncio.fixture(scope="session")
async def prepared_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine for the whole run, on tables that are empty but for the roles."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        await setup_roles(session)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def roles(prepared_engine: AsyncEngine) -> None:
    """The roles, which `prepared_engine` has created."""


@pytest.fixture
def override_get_db(get_db_session: object) -> None:
    """Nothing; the app's own session factory is on the engine of the test."""
