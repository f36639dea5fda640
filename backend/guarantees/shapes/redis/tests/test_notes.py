"""What the project tests."""

import pytest


@pytest.mark.parametrize("time", [1, 2])
async def test_the_count_is_cached(client, cache, time):
    await client.post("/notes/milk")
    await client.get("/notes/count")
    await client.post("/notes/bread")

    assert (await client.get("/notes/count")).json() == 1
    assert cache.values == {"notes": b"1"}
