"""What the project tests."""

import pytest


@pytest.mark.parametrize("time", [1, 2])
async def test_administrators_see_what_the_public_did(client, admin_client, time):
    assert (await client.post("/users/ada")).status_code == 201

    assert (await admin_client.get("/report")).json() == 1


async def test_what_failed_was_rolled_back(client, admin_client):
    assert (await client.post("/users/ada?fail=true")).status_code == 418

    assert (await admin_client.get("/report")).json() == 0
