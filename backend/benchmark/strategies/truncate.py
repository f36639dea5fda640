"""On `once`: every test begins with one TRUNCATE of all tables but those of the roles."""

import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmark.strategies.once import OTHERS

STATEMENT = sa.text(f"TRUNCATE {', '.join(table.name for table in OTHERS)} RESTART IDENTITY")


@pytest_asyncio.fixture
async def engine(prepared_engine: AsyncEngine) -> AsyncEngine:
    """The engine of the run, on tables that were truncated for this test."""
    async with prepared_engine.begin() as connection:
        await connection.execute(STATEMENT)
    return prepared_engine
