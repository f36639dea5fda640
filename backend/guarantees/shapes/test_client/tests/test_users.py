"""What the project tests."""

import pytest
from sqlalchemy import select

from app.models import User


@pytest.mark.parametrize("time", [1, 2])
def test_a_user_is_created(client, time):
    assert client.post("/users/ada").status_code == 200
    assert client.post("/users/ada").status_code == 409
    assert client.get("/users/count").json() == 1


async def test_an_asynchronous_test_has_a_session_too(client, db):
    client.post("/users/ada")

    assert (await db.scalars(select(User.email))).all() == ["ada"]
