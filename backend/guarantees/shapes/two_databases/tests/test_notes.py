"""What the project tests."""

import pytest
from sqlalchemy import select

from app import audit


@pytest.fixture
async def audit_db(get_db_session):
    """A session on the second database."""
    async with audit.SessionLocal() as session:
        yield session


@pytest.mark.parametrize("time", [1, 2])
async def test_both_databases_are_empty_at_first(client, audit_db, time):
    assert (await client.post("/notes/milk")).json() == 1

    assert list(await audit_db.scalars(select(audit.Entry.what))) == ["created milk"]
