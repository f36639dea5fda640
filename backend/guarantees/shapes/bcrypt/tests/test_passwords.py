"""What the project tests."""

import bcrypt

from app.security import hash_password


def test_the_app_hashes_at_the_lowest_cost():
    stored = hash_password("secret")

    assert stored.startswith("$2b$04$")
    assert bcrypt.checkpw(b"secret", stored.encode())


async def test_there_are_users(client, regular_user):
    assert (await client.get("/users/count")).json() == 1
