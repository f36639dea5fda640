"""What the project tests."""

import pytest


@pytest.mark.parametrize("time", [1, 2])
async def test_a_user_is_created(client, time):
    assert (await client.post("/users/ada")).status_code == 200
    assert (await client.get("/users/count")).json() == 1
