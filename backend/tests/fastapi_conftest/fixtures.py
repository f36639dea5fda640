"""Fixtures that every project gets: real commits, empty databases, overrides that end with a test.

They ask for the fixtures `engine` and `override_get_db` of the conftest.
"""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock

import pytest
import pytest_asyncio
import sqlalchemy as sa

from .guard import open_to_everybody
from .project import project
from .record import refuse, running
from .steps import worker_of


@pytest.fixture(autouse=True)
def overrides_end_with_the_test() -> Iterator[None]:
    """What a test overrides in the application ends with it, and so does `app.state`.

    The same holds for mounted applications.
    """
    with ExitStack() as stack:
        for app in applications():
            overrides = app.dependency_overrides
            stack.enter_context(mock.patch.object(app, "dependency_overrides", overrides))
            stack.enter_context(mock.patch.dict(overrides))
            stack.enter_context(mock.patch.dict(vars(app.state)["_state"]))
        yield


def applications() -> Iterator[Any]:
    """Yield the application, and those that are mounted in it, at any depth, also in middleware."""
    seen, waiting = set[int](), [project().app]
    while waiting:
        it = waiting.pop()
        if id(it) in seen:
            continue
        seen.add(id(it))
        waiting += getattr(it, "routes", None) or ()
        if hasattr(it, "dependency_overrides"):
            yield it
        else:  # a route, a middleware, or a router as a newer FastAPI includes it
            waiting += [getattr(it, "app", None), getattr(it, "original_router", None)]


@pytest.fixture
def fresh_database(override_get_db: None, engine: Any) -> Any:
    """The engine, with real connections and commits: asking for it is as good as the marker."""
    if not running().real_commits:  # asked for by getfixturevalue
        refuse("fresh_database in a test that has begun without it.")
    return engine


@pytest.fixture
def fresh_database_url(fresh_database: Any) -> Iterator[sa.URL]:
    """The URL of `fresh_database`, for other engines, of any driver by `set(drivername=...)`."""
    worker = worker_of(fresh_database)
    url = worker.admin.url(worker.clone.name)
    with open_to_everybody(str(url.database)):
        yield url


@pytest_asyncio.fixture
async def empty_database(engine: Any) -> AsyncIterator[sa.URL]:
    """The URL of a new, empty database, which any engine may use: to test migrations."""
    admin = worker_of(engine).admin
    name = admin.name(f"empty{secrets.token_hex(4)}")
    await admin.create(name, "template0")
    with open_to_everybody(name):
        yield admin.url(name)
    await admin.drop(name)
