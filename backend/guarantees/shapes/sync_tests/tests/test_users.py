"""What the project tests."""

import pytest
from sqlalchemy import select

from app.models import User


@pytest.mark.parametrize("time", [1, 2])
def test_a_user_is_created(client, time):
    assert client.post("/users/ada").status_code == 200
    assert client.post("/users/ada").status_code == 409
    assert client.get("/users/count").json() == 1


def test_a_synchronous_test_has_a_session_too(client, db, run):
    db.add(User(email="ada"))
    run(db.commit())
    client.post("/background/grace")

    assert run(db.scalars(select(User.email).order_by(User.id))).all() == ["ada", "grace"]
