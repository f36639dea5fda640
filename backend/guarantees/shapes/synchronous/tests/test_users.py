import pytest
from sqlalchemy import select

from app.models import User


@pytest.mark.parametrize("time", [1, 2])
def test_what_is_committed_is_gone(client, db, time):
    assert client.app.state.started
    assert client.post("/users/ada").status_code == 200
    assert client.post("/users/ada").status_code == 409
    assert client.post("/background/grace").status_code == 200
    assert client.get("/users/count").json() == 2
    assert [user.id for user in db.scalars(select(User).order_by(User.id))][0] == 1


def test_a_forgotten_commit_is_seen(client):
    client.post("/forgotten/ada")
    assert client.get("/users/count").json() == 0


def test_the_test_selects_anew_what_a_request_has_changed(client, db):
    db.add(user := User(email="ada"))
    db.commit()
    assert client.get("/users/count").json() == 1
    assert db.scalars(select(User)).one() is user


def test_its_own_connection(db_transaction, client):
    db_transaction.execute(User.__table__.insert().values(email="ada"))
    assert client.get("/users/count").json() == 0
    db_transaction.commit()
    assert client.get("/users/count").json() == 1


async def test_an_asynchronous_test_may_ask_for_it_too(client):
    assert client.get("/users/count").json() == 0
