"""What a whole test costs, from the end of the one before it: of each kind that pays differently.

Each kind has a run of its own, of many tests alike, in a small project: the reference project, or
one of the guarantees' shapes. The price of a new connection stands beside them, because whoever
cannot keep connections pays it for each: an engine with NullPool, and tests on other event loops.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from benchmark.example import lay_out
from benchmark.runs import PLUGINS

TIMES = 100  # tests of a kind, and new connections
MANY = f'@pytest.mark.parametrize("number", range({TIMES}))'
REQUEST = "def test_it(client, number): client.get('/users/count')"
REFUSED = """async def test_it(db, get_db_session, number):
    await db.execute(text("INSERT INTO users (email) VALUES ('ada')"))
    async with get_db_session() as other:
        await other.execute(text("SELECT 1"))
"""
SESSION = "async def test_it(db, number): await db.execute(text('SELECT 1'))"


class Kind(NamedTuple):
    """A kind of test."""

    test: str
    shape: str = ""  # the example of the guarantees has the reference conftest without one
    real_commits: bool = False
    without_pool: bool = False


KINDS = {
    "an empty test": Kind("async def test_it(number): pass"),
    "a session, by rollback": Kind(SESSION),
    "a session, with real commits": Kind(SESSION, real_commits=True),
    "the same, with NullPool": Kind(SESSION, real_commits=True, without_pool=True),
    "a session, refused by rollback and run again": Kind(REFUSED),
    "a session of a synchronous application": Kind(
        "def test_it(db, number): db.execute(text('SELECT 1'))", "synchronous"
    ),
    "a request, by rollback": Kind(
        "async def test_it(client, number): await client.get('/users/count')"
    ),
    "a request by TestClient to a synchronous application": Kind(REQUEST, "synchronous"),
    "a request by TestClient to an asynchronous application": Kind(REQUEST, "test_client"),
}


class Measured(NamedTuple):
    """What the tests of a kind took, in milliseconds."""

    start: float  # of a warm process, on the server, the template, the clone and the roles
    test: float


def whole_tests(server: URL) -> dict[str, float]:
    """Return the median milliseconds of a test of each kind, and of a new connection."""
    measured = {title: in_project(kind) for title, kind in KINDS.items()}
    return {
        "a warm start's work on the database": measured["a session, by rollback"].start,
        **{title: each.test for title, each in measured.items()},
        "a new connection of asyncpg": asyncio.run(new_connections(server)),
        "a new connection of psycopg, synchronous": new_synchronous_connections(server),
    }


def in_project(kind: Kind) -> Measured:
    """Return what tests of a kind take, run twice so that the schema is cached."""
    with tempfile.TemporaryDirectory() as folder:
        project, record = Path(folder, "project"), Path(folder, "record.jsonl")
        lay_out(project, kind.shape)
        for others in project.glob("tests/test_*.py"):
            others.unlink()
        test = f"import pytest\nfrom sqlalchemy import text\n\n{MANY}\n{kind.test}\n"
        (project / "tests" / "test_it.py").write_text(test, encoding="utf-8")
        if kind.without_pool:
            take_the_pool(project / "app" / "db.py")
        options = ["-p", "conftest_recorder", *["--real-commits"] * kind.real_commits]
        for _ in range(2):
            record.unlink(missing_ok=True)
            output = subprocess.run(  # noqa: S603 - our own command
                [sys.executable, "-m", "pytest", *options, "tests"],
                cwd=project,
                env={**os.environ, "PYTHONPATH": str(PLUGINS), "RECORDER_FILE": str(record)},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    tests = [line for line in lines if "test" in line]
    ready = float((output.partition(", ready in ")[2].partition(" ms")[0]) or 0)
    taken = median(end - begin for begin, end in pairwise(line["end"] for line in tests))
    return Measured(ready + tests[0]["setup"] * 1000, taken * 1000)


def take_the_pool(file: Path) -> None:
    """Have the example's engine keep no connections."""
    made, source = '1/production")', file.read_text(encoding="utf-8")
    if source.count(made) != 1:
        raise ValueError(f"{file} has {made!r} {source.count(made)} times, not once")
    without = source.replace(made, '1/production", poolclass=NullPool)')
    file.write_text(f"from sqlalchemy.pool import NullPool\n{without}", encoding="utf-8")


async def new_connections(server: URL) -> float:
    """Return the median milliseconds of connecting by asyncpg under SQLAlchemy."""
    engine, taken = create_async_engine(server, poolclass=NullPool), []
    for _ in range(TIMES):
        started = time.perf_counter()
        async with engine.connect():
            taken.append(time.perf_counter() - started)
    return median(taken) * 1000


def new_synchronous_connections(server: URL) -> float:
    """Return the median milliseconds of connecting by psycopg under SQLAlchemy."""
    url = server.set(drivername="postgresql+psycopg")
    engine, taken = create_engine(url, poolclass=NullPool), []
    for _ in range(TIMES):
        started = time.perf_counter()
        with engine.connect():
            taken.append(time.perf_counter() - started)
    return median(taken) * 1000
