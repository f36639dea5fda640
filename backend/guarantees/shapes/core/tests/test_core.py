"""What the project tests."""

import sqlalchemy as sa

from app.db import engine, notes


async def test_a_test_uses_the_engine_of_the_app(client):
    async with engine.begin() as connection:
        await connection.execute(sa.insert(notes).values(text="milk"))

    assert (await client.get("/notes")).json() == ["milk"]
