import pytest
from sqlalchemy import select

from app.main import command
from app.models import User


@pytest.mark.parametrize("time", [1, 2])
async def test_each_kind_sees_what_the_other_has_committed(client, db, sync_db, time):
    await client.post("/users/ada")
    command("grace")

    assert (await client.get("/users/count")).json() == 2
    assert (await db.scalars(select(User.email).order_by(User.id))).all() == ["ada", "grace"]
    assert sync_db.scalars(select(User.id).order_by(User.id)).all() == [1, 2]


def test_a_command_needs_no_request(sync_db):
    command("ada")

    assert sync_db.scalars(select(User.email)).all() == ["ada"]
