"""Builders of inner tests: each writes the project's tests/test_it.py."""

from guarantees.project import Project

# Inner tests run in the order in which they are written: one acts, the next looks for traces.
IMPORTS = """
import asyncio

import pytest
import sqlalchemy as sa

from app.main import Db, app
from app.models import Role, User
"""
LOOK = """
async def test_2_the_next_test_starts_empty(db, client):
    assert await db.scalar(sa.select(sa.func.count()).select_from(User)) == 0
    assert (await db.scalars(sa.select(Role.name).order_by(Role.name))).all() == ["admin", "member"]
    assert (await client.post("/users/ada")).status_code == 200
"""
# Each inner test runs twice: on savepoints, and on real transactions, which prove that what it
# expects is what production does.
BOTH = """
import asyncio

import pytest
import sqlalchemy as sa
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db import SessionLocal
from app.main import Db, app
from app.models import Role, User

REAL = pytest.param("real", marks=pytest.mark.fresh_database)

@pytest.fixture(autouse=True, params=["savepoints", REAL])
def transactions_are(request):
    return request.param

async def emails(db):
    found = (await db.scalars(sa.select(User.email).order_by(User.email))).all()
    await db.rollback()
    return found
"""


def write_tests(project: Project, source: str) -> None:
    """Write the project's tests, behind the usual imports."""
    project.write("tests/test_it.py", IMPORTS + source)


def write_then_look(project: Project, source: str) -> None:
    """Write the project's tests, and one after them that looks for their traces."""
    write_tests(project, source + LOOK)


def write_on_both_paths(project: Project, source: str) -> None:
    """Write the project's tests, each of which runs by rollback and with real commits."""
    project.write("tests/test_it.py", BOTH + source)


def seed_nothing(project: Project) -> None:
    """Leave out the roles, where sessions work in a test only."""
    project.replace("tests/conftest.py", "    await fc.seed_once(engine, setup_roles)\n", "")


def add_second_engine(project: Project, options: str, lines: str = "", first: str = "") -> None:
    """Give the application a second engine with these options, and a factory, `Second`.

    lines: what it does with the engine, `second`.
    first: the options of its first engine.
    """
    made = f"second = create_async_engine(engine.url, {options})"
    project.app_engine(f"{made}\n{lines}\nSecond = async_sessionmaker(second)", first)
    project.replace("tests/conftest.py", "from app.db import", "from app.db import Second,")
    project.replace("tests/conftest.py", "[SessionLocal]", "[SessionLocal, Second]")
