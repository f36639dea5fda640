"""What the project tests."""

import sqlalchemy as sa


async def test_tables_are_where_the_models_put_them(client, db):
    assert (await client.post("/users/ada")).status_code == 200

    assert await db.scalar(sa.text("SELECT count(*) FROM people.users")) == 1
    assert await db.scalar(sa.text("SELECT count(*) FROM access.roles")) == 2


async def test_a_deferred_constraint_fails_at_the_commit(client):
    codes = [(await client.post(f"/users/{name}?desk=1")).status_code for name in ("ada", "joan")]

    assert codes == [200, 409]
