"""What the project tests."""

import pytest

from app import db as database
from app.models import Note


@pytest.fixture
def swapped(monkeypatch, test_engine):
    """The app's engine is the one of the tests, as their old conftest wanted it."""
    monkeypatch.setattr(database, "engine", test_engine)


@pytest.mark.parametrize("time", [1, 2])
async def test_the_app_works_on_the_swapped_engine(swapped, client, db, time):
    db.add(Note(text="milk"))
    await db.commit()

    assert (await client.get("/notes")).json() == ["milk"]
