"""On `once`: every test drops and creates all tables but those of the roles, and connects anew."""

from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.db import Base
from benchmark.strategies.once import OTHERS


@pytest_asyncio.fixture
async def engine(database_url: str, prepared_engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """A new engine, on tables that were dropped and created for this test."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all, OTHERS)
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()
