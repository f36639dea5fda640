"""On the new conftest: every test has a connection of its own, as with NullPool."""

from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.conftest import Transactions


@pytest_asyncio.fixture
async def transactions(
    transactions: Transactions, engine: AsyncEngine
) -> AsyncIterator[Transactions]:
    """The conftest's transactions; the connection is closed after the test's ROLLBACK."""
    yield transactions
    await engine.dispose()
