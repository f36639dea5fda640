"""What the project tests."""

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from app.models import Note


@pytest.mark.parametrize("time", [1, 2])
async def test_a_listener_makes_its_settings(client, db, time):
    await client.post("/notes/milk")
    await db.rollback()

    assert await db.scalar(sa.text("SHOW timezone")) == "Asia/Tokyo"
    assert (await client.get("/notes")).json() == ["milk"]


@pytest.mark.fresh_database
async def test_a_listener_makes_them_on_real_connections_too(db):
    assert await db.scalar(sa.text("SHOW timezone")) == "Asia/Tokyo"


async def test_an_upsert_is_never_prepared(db):
    for _ in range(7):
        await db.execute(insert(Note).values(text="milk").on_conflict_do_nothing())
        await db.commit()

    assert await db.scalar(sa.text("SELECT count(*) FROM pg_prepared_statements")) <= 1
