"""Tests that ask for `event_loop`, with the fixture of docs/adopting.md; see ci/versions.py."""

import asyncio

from httpx import AsyncClient


async def test_1_before(client: AsyncClient) -> None:
    assert (await client.post("/users/ada")).status_code == 200


async def test_2_it_is_the_one_that_runs(
    event_loop: asyncio.AbstractEventLoop, client: AsyncClient
) -> None:
    assert event_loop is asyncio.get_running_loop()
    assert (await client.post("/users/ada")).status_code == 200


def test_3_it_is_open_in_a_test_that_is_not_async(event_loop: asyncio.AbstractEventLoop) -> None:
    assert not event_loop.is_closed()


async def test_4_it_stays_open(client: AsyncClient) -> None:
    assert (await client.post("/users/ada")).status_code == 200
