"""What the project tests."""

import sqlalchemy as sa

from app.models import User


async def test_the_extension_is_there(db):
    names = (await db.scalars(sa.text("SELECT extname FROM pg_extension"))).all()

    assert "vector" in names or "citext" in names


async def test_the_trigger_is_there(client, db):
    await client.post("/users/ada")

    assert (await db.scalars(sa.select(User.changed_at))).one() is not None


async def test_the_database_knows_its_revision(db):
    assert await db.scalar(sa.text("SELECT version_num FROM alembic_version")) == "0001"
