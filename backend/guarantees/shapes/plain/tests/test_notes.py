"""What the project tests."""

import pytest


@pytest.mark.parametrize("time", [1, 2])
async def test_a_note_is_created(client, time):
    assert (await client.post("/notes/milk")).json() == 1
    assert (await client.get("/notes")).json() == ["milk"]


async def test_no_note_is_created_twice(client):
    codes = [(await client.post("/notes/milk")).status_code for _ in range(2)]

    assert codes == [200, 409]
