"""What has to work with every version that adopters may have pinned; see ci/versions.py."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import User


@pytest.fixture
async def grace(db: AsyncSession) -> AsyncIterator[User]:
    db.add(user := User(email="grace"))
    await db.commit()
    yield user


@pytest.mark.parametrize("time", [1, 2])
async def test_what_is_committed_is_gone(client: AsyncClient, time: int) -> None:
    await client.post("/users/ada")

    assert (await client.get("/users/count")).json() == 1


@pytest.mark.parametrize("time", [1, 2])
async def test_ids_begin_at_one(grace: User, time: int) -> None:
    assert grace.id == 1


def test_another_loop_may_be_run() -> None:
    asyncio.run(asyncio.sleep(0))  # and leaves the thread without one


@pytest.mark.asyncio(loop_scope="function")
async def test_a_loop_of_its_own_is_overruled(client: AsyncClient, grace: User) -> None:
    assert (await client.get("/users/count")).json() == 1


@pytest.mark.asyncio(loop_scope="class")
class TestClass:
    async def test_a_loop_of_the_class_is_overruled(self, client: AsyncClient, grace: User) -> None:
        assert (await client.get("/users/count")).json() == 1


@pytest.mark.anyio
async def test_a_test_for_anyio_is_one_like_any_other(client: AsyncClient, grace: User) -> None:
    assert (await client.get("/users/count")).json() == 1


@pytest.mark.fresh_database
@pytest.mark.parametrize("time", [1, 2])
async def test_real_commits_are_cleaned(client: AsyncClient, grace: User, time: int) -> None:
    answers = await asyncio.gather(*(client.post(f"/users/{n % 2}") for n in range(4)))

    assert sorted(each.status_code for each in answers) == [200, 200, 409, 409]
    assert grace.id == 1


async def test_what_rollback_cannot_serve_runs_again(client: AsyncClient, db: AsyncSession) -> None:
    db.add(User(email="flushed"))
    await db.flush()

    assert (await client.get("/users/count")).json() == 0


def test_a_test_that_is_not_async_may_ask_for_fixtures(client: AsyncClient) -> None:
    assert client.base_url == "http://test"
