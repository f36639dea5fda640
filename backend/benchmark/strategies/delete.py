"""On `once`: every test begins by deleting the rows of all tables but those of the roles.

The tables that refer to others come first, and all statements go to the server at once.
"""

from typing import Any

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmark.strategies.once import OTHERS

SCRIPT = "; ".join(
    f"DELETE FROM {table.name}"  # noqa: S608 - the names are those of our own models
    for table in reversed(OTHERS)
)


@pytest_asyncio.fixture
async def engine(prepared_engine: AsyncEngine) -> AsyncEngine:
    """The engine of the run, on tables whose rows were deleted for this test."""
    async with prepared_engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute(SCRIPT)
    return prepared_engine
