"""What isolation costs a test, beside the floor: BEGIN and ROLLBACK on the bare driver.

`make isolation` prints a table. The cost is that of what `db_transaction` does for each test, over
12 and 200 tables, empty and with 100,000 committed rows; fixtures' own overhead is not in it.
Beneath it stands what a test marked `fresh_database` costs more than one without.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import asyncpg
from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from benchmark.server import create_database, drop_database, server_url
from tests import conftest

BACKEND = Path(__file__).resolve().parent.parent
TESTS = 1_000
MARKED = """
import pytest

@pytest.mark.parametrize("number", range(10))
async def test_ordinary(db, number): pass

@pytest.mark.fresh_database
@pytest.mark.parametrize("number", range(10))
async def test_fresh(db, number): pass
"""
SETTINGS = [(12, 0), (200, 0), (12, 100_000)]


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Return the median milliseconds of one call."""
    for _ in range(50):
        await work()
    seconds = []
    for _ in range(TESTS):
        started = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - started)
    return median(seconds) * 1000


async def fill(engine: AsyncEngine, tables: int, rows: int) -> None:
    """Create the tables, the first one with rows."""
    async with engine.begin() as connection:
        for number in range(tables):
            await connection.execute(text(f"CREATE TABLE t{number} (id int PRIMARY KEY, a text)"))
        statement = "INSERT INTO t0 SELECT n, 'row' FROM generate_series(1, :rows) AS n"
        await connection.execute(text(statement), {"rows": rows})


async def measure(url: str, tables: int, rows: int) -> tuple[float, float]:
    """Return the milliseconds of the bare driver and of the conftest's isolation."""
    engine = create_async_engine(url, poolclass=StaticPool, isolation_level="AUTOCOMMIT")
    await fill(engine, tables, rows)
    bare = await asyncpg.connect(url.replace("+asyncpg", ""))

    async def floor() -> None:
        await bare.execute("BEGIN")
        await bare.execute("ROLLBACK")

    transactions = conftest.Transactions(engine.sync_engine, check=None)

    async def isolated() -> None:
        async with engine.connect() as connection:
            await connection.run_sync(transactions.begin)
            await connection.run_sync(transactions.end)

    figures = await timed(floor), await timed(isolated)
    await bare.close()
    await engine.dispose()
    return figures


def cost_of_the_marker() -> float:
    """Return the milliseconds that `fresh_database` adds to a test, by the median of 10."""
    with tempfile.TemporaryDirectory() as folder:
        tests, record = Path(folder, "test_marked.py"), Path(folder, "record.jsonl")
        tests.write_text(MARKED, encoding="utf-8")
        plugins = ["-p", "tests.conftest", "-p", "conftest_recorder", "-p", "no:cacheprovider"]
        plugins += ["-o", "asyncio_default_fixture_loop_scope=session"]
        subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "pytest", "--rootdir", folder, *plugins, str(tests)],
            env={
                **os.environ,
                "PYTHONPATH": f"{BACKEND}{os.pathsep}{BACKEND / 'benchmark' / 'plugins'}",
                "RECORDER_FILE": str(record),
            },
            check=True,
            stdout=subprocess.DEVNULL,
        )
        tests_run = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    fresh, ordinary = (
        median(
            float(test["setup"] + test["call"] + test["teardown"])
            for test in tests_run
            if name in test.get("test", "")
        )
        for name in ("test_fresh", "test_ordinary")
    )
    return (fresh - ordinary) * 1000


def main() -> None:
    """Measure and print."""
    server = server_url()
    table = Table("tables", "rows", "bare BEGIN + ROLLBACK, ms", "isolation, ms", "times")
    for tables, rows in SETTINGS:
        name = f"isolation_{secrets.token_hex(4)}"
        url = asyncio.run(create_database(server, name)).render_as_string(hide_password=False)
        try:
            bare, ours = asyncio.run(measure(url, tables, rows))
        finally:
            asyncio.run(drop_database(server, name))
        table.add_row(str(tables), f"{rows:,}", f"{bare:.3f}", f"{ours:.3f}", f"{ours / bare:.1f}")
    Console().print(table)
    Console().print(f"A test marked fresh_database costs {cost_of_the_marker():.0f} ms more.")


if __name__ == "__main__":
    main()
