"""What the project tests."""

import asyncio

import pytest
from sqlalchemy import text


@pytest.mark.parametrize("time", [1, 2])
async def test_a_tenant_sees_its_own_notes(client_factory, time):
    ada, joan = client_factory("ada"), client_factory("joan")

    await asyncio.gather(ada.post("/notes/milk"), joan.post("/notes/bread"))

    assert (await ada.get("/notes")).json() == ["milk"]
    assert (await joan.get("/notes")).json() == ["bread"]


async def test_the_test_itself_sees_all(client_factory, db):
    await client_factory("ada").post("/notes/milk")

    assert await db.scalar(text("SELECT tenant FROM notes")) == "ada"
