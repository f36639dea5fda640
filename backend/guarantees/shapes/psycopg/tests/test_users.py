"""What the project tests."""

import asyncio

import pytest
import sqlalchemy as sa

from app.models import User


@pytest.mark.parametrize("time", [1, 2])
async def test_a_user_is_created(client, db, time):
    codes = [(await client.post("/users/ada")).status_code for _ in range(2)]

    assert codes == [200, 409]
    assert (await db.scalars(sa.select(User.email))).all() == ["ada"]


async def test_the_driver_is_psycopg(db):
    assert (await db.connection()).dialect.driver == "psycopg"


async def test_requests_at_the_same_time(client):
    responses = await asyncio.gather(*(client.post(f"/users/{n}") for n in range(5)))

    assert [response.status_code for response in responses] == [200] * 5
    assert (await client.get("/users/count")).json() == 5


async def test_a_deferred_constraint_fails_at_the_commit(client):
    codes = [(await client.post(f"/users/{name}?desk=1")).status_code for name in ("ada", "joan")]

    assert codes == [200, 409]
    assert (await client.get("/users/count")).json() == 1


@pytest.mark.fresh_database
async def test_on_a_database_of_its_own(client):
    assert (await client.post("/users/ada")).status_code == 200
    assert (await client.get("/users/count")).json() == 1
