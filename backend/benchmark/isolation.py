"""What isolation costs a test, beside the floor: BEGIN and ROLLBACK on the bare driver.

`make isolation` prints two tables. The first is of what `db_transaction` does for each test, over
numbers of tables and of committed rows; fixtures' own overhead is not in it. Both columns are
measured in turn on the same connection, because a round trip takes up to five times as long when
the operating system has put the two processes on different CPUs. The second is of whole tests.
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
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from benchmark.runs import BACKEND, PLUGINS
from benchmark.server import create_database, drop_database, server_url
from tests import conftest

REPEATS = 1_000
SETTINGS = [(12, 0), (50, 0), (200, 0), (12, 10_000), (12, 100_000)]
KINDS = {
    "test_empty": "an empty async test",
    "test_request": "a request without a database",
    "test_database": "a session on the test's database",
    "test_fresh": "a session, with the marker fresh_database",
}
TESTS = """
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

@pytest.mark.parametrize("number", range(50))
async def test_empty(number): pass

@pytest.mark.parametrize("number", range(50))
async def test_request(number):
    async with AsyncClient(transport=ASGITransport(FastAPI()), base_url="http://test") as client:
        await client.get("/")

@pytest.mark.parametrize("number", range(50))
async def test_database(db, number): pass

@pytest.mark.fresh_database
@pytest.mark.parametrize("number", range(10))
async def test_fresh(db, number): pass
"""


async def medians(*works: Callable[[], Awaitable[object]]) -> list[float]:
    """Return the median milliseconds of one call of each, called in turn."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(REPEATS):
        for work, times in zip(works, seconds, strict=True):
            started = time.perf_counter()
            await work()
            times.append(time.perf_counter() - started)
    return [median(times) * 1000 for times in seconds]


async def fill(engine: AsyncEngine, tables: int, rows: int) -> None:
    """Create the tables, the first one with rows."""
    async with engine.begin() as connection:
        for number in range(tables):
            await connection.execute(text(f"CREATE TABLE t{number} (id int PRIMARY KEY, a text)"))
        statement = "INSERT INTO t0 SELECT n, 'row' FROM generate_series(1, :rows) AS n"
        await connection.execute(text(statement), {"rows": rows})


async def measure(url: str, tables: int, rows: int) -> list[float]:
    """Return the milliseconds of the bare driver and of the conftest's isolation."""
    engine = create_async_engine(url, poolclass=StaticPool, isolation_level="AUTOCOMMIT")
    await fill(engine, tables, rows)
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection

    async def bare() -> None:
        await driver.execute("BEGIN")
        await driver.execute("ROLLBACK")

    transactions = conftest.Transactions(engine.sync_engine, check=None)

    async def isolated() -> None:
        async with engine.connect() as connection:
            await connection.run_sync(transactions.begin)
            await connection.run_sync(transactions.end)

    figures = await medians(bare, isolated)
    await engine.dispose()
    return figures


def isolation() -> list[dict[str, float]]:
    """Return the cost of isolation in each of the settings, in milliseconds."""
    server = server_url()
    found = []
    for tables, rows in SETTINGS:
        name = f"isolation_{secrets.token_hex(4)}"
        url = asyncio.run(create_database(server, name)).render_as_string(hide_password=False)
        try:
            bare, ours = asyncio.run(measure(url, tables, rows))
        finally:
            asyncio.run(drop_database(server, name))
        found.append({"tables": tables, "rows": rows, "bare_ms": bare, "isolation_ms": ours})
    return found


def whole_tests() -> dict[str, float]:
    """Return the median milliseconds of a test of each kind, its set-up and teardown included.

    First comes what a process spends on the database before its first test: on the server and the
    template, as the report's header says, and on the clone, the roles and the connection.
    """
    with tempfile.TemporaryDirectory() as folder:
        tests, record = Path(folder, "test_kinds.py"), Path(folder, "record.jsonl")
        tests.write_text(TESTS, encoding="utf-8")
        plugins = ["-p", "tests.conftest", "-p", "conftest_recorder", "-p", "no:cacheprovider"]
        plugins += ["-o", "asyncio_default_fixture_loop_scope=session"]
        output = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "pytest", "--rootdir", folder, *plugins, str(tests)],
            env={
                **os.environ,
                "PYTHONPATH": f"{BACKEND}{os.pathsep}{PLUGINS}",
                "RECORDER_FILE": str(record),
            },
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    ready = float(output.partition(", ready in ")[2].partition(" ms")[0])
    first = next(line for line in lines if "::test_database[" in line.get("test", ""))
    return {"a warm start's work on the database": ready + first["setup"] * 1000} | {
        title: median(
            (line["setup"] + line["call"] + line["teardown"]) * 1000
            for line in lines
            if f"::{name}[" in line.get("test", "")
        )
        for name, title in KINDS.items()
    }


def main() -> None:
    """Measure and print."""
    table = Table("tables", "rows", "bare BEGIN + ROLLBACK, ms", "isolation, ms", "times")
    for each in isolation():
        bare, ours = each["bare_ms"], each["isolation_ms"]
        counts = f"{each['tables']}", f"{each['rows']:,}"
        table.add_row(*counts, f"{bare:.3f}", f"{ours:.3f}", f"{ours / bare:.1f}")
    whole = Table("whole tests", "ms")
    for title, milliseconds in whole_tests().items():
        whole.add_row(title, f"{milliseconds:.2f}")
    Console().print(table, whole)


if __name__ == "__main__":
    main()
