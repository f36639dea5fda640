"""A suite written for anyio."""

import asyncio

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """The event loop of the suite."""
    return "asyncio"


@pytest.fixture
async def ada(client):
    """A user who is there already."""
    await client.post("/users/ada")


async def test_a_fixture_of_the_suite_reaches_the_database(client, ada):
    assert (await client.get("/users/count")).json() == 1


async def test_requests_at_the_same_time(client):
    await asyncio.gather(*(client.post(f"/users/{n}") for n in range(3)))

    assert (await client.get("/users/count")).json() == 3
