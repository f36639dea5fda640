"""What isolation costs a test, beside the floor: BEGIN and ROLLBACK on the bare driver.

`make isolation` prints two tables. The first is of what `db_transaction` does for each test, over
numbers of tables, of sequences and of committed rows; fixtures' own overhead is not in it. Its
columns are measured in turn, bare and rolled back on the same connection, because a round trip
takes up to five times as long when the operating system has put the two processes on different
CPUs. With real commits the test inserts two rows into each of two tables and commits, which is in
the first figure and not in the second; dead rows add up, so both are of the last 1,000 of 5,000
such tests. A clone is dropped and made anew, with all its connections. The second table is of whole
tests.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from statistics import median
from typing import Any

from fastapi_conftest.application import connections
from fastapi_conftest.guard import guard
from fastapi_conftest.real_commits import RealCommits
from fastapi_conftest.record import running
from fastapi_conftest.rollback import Rollback
from fastapi_conftest.template import Template
from rich.console import Console
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import create_async_engine

from benchmark import sheets
from benchmark.server import create_database, drop_database, server_url
from benchmark.whole_tests import whole_tests

REPEATS = 1_000
WARM_UP = 4_000  # tests with real commits, before they are timed
# Tables, sequences, committed rows.
SETTINGS = [(14, 0, 0), (80, 0, 0), (300, 0, 0), (14, 0, 100_000), (14, 14, 0), (80, 80, 0)]


async def medians(*works: Callable[[], Awaitable[object]], repeats: int = REPEATS) -> list[float]:
    """Return the median milliseconds of one call of each, called in turn."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, times in zip(works, seconds, strict=True):
            started = time.perf_counter()
            await work()
            times.append(time.perf_counter() - started)
    return [median(times) * 1000 for times in seconds]


async def fill(server: URL, name: str, tables: int, sequences: int, rows: int) -> None:
    """Create a database with these tables, the first one with rows."""
    engine = create_async_engine(await create_database(server, name))
    async with engine.begin() as connection:
        for number in range(tables):
            kind = "serial" if number < sequences else "int"
            await connection.execute(
                text(f"CREATE TABLE t{number} (id {kind} PRIMARY KEY, a text)")
            )
        statement = "INSERT INTO t0 SELECT n, 'row' FROM generate_series(1, :rows) AS n"
        await connection.execute(text(statement), {"rows": rows})
    await engine.dispose()


async def measure(server: URL, name: str) -> list[float]:
    """Return the milliseconds of each column, on a template of this name."""
    url = server.render_as_string(hide_password=False)
    template = Template(url, name, header="", tables=[], owner=None)
    application = connections()
    application.loop = asyncio.get_running_loop()
    with guard(application):
        async with aclosing(template.administrator()) as admin:
            rollback = Rollback("rollback", template, admin, application)
            commits = RealCommits("commits", template, admin, application)
            figures = [*await by_rollback(rollback), *await by_real_commits(commits)]
            await rollback.drop()
            await commits.drop()
    if running().notes:  # it was cloned anew, and its time was measured, too
        raise RuntimeError(running().notes)
    return figures


async def by_rollback(rollback: Rollback) -> list[float]:
    """Return what the bare pair takes, and what isolation by rollback does."""
    connection = await rollback.start_test()
    raw: Any = await connection.run_sync(lambda it: it.connection.dbapi_connection)
    driver = raw.driver_connection
    await rollback.end_test(connection)

    async def bare() -> None:
        await driver.execute("BEGIN")
        await driver.execute("ROLLBACK")

    async def rolled_back() -> None:
        await rollback.end_test(await rollback.start_test())

    return await medians(bare, rolled_back)


async def by_real_commits(commits: RealCommits) -> list[float]:
    """Return what a small test takes, what isolation does of it, and what a clone does."""
    around: list[float] = []

    async def committed() -> None:
        started = time.perf_counter()
        connection = await commits.start_test()
        began = time.perf_counter()
        await connection.execute(text("INSERT INTO t1 VALUES (-1), (-2)"))
        await connection.execute(text("INSERT INTO t3 VALUES (-1), (-2)"))
        await connection.commit()
        done = time.perf_counter()
        await commits.end_test(connection)
        around.append(began - started + time.perf_counter() - done)

    for _ in range(WARM_UP):
        await committed()
    whole = await medians(committed)
    clones = await medians(commits.clone, repeats=20)
    return [*whole, median(around[-REPEATS:]) * 1000, *clones]


def isolation() -> list[dict[str, float]]:
    """Return the cost of isolation in each of the settings, in milliseconds."""
    server = server_url()
    found = []
    for tables, sequences, rows in SETTINGS:
        name = f"isolation_{secrets.token_hex(4)}"
        try:
            asyncio.run(fill(server, name, tables, sequences, rows))
            bare, ours, commits, around, clone = asyncio.run(measure(server, name))
        finally:
            asyncio.run(drop_database(server, name))
        counts = {"tables": tables, "sequences": sequences, "rows": rows}
        costs = {
            "bare_ms": bare,
            "isolation_ms": ours,
            "real_commits_ms": commits,
            "around_real_commits_ms": around,
            "clone_ms": clone,
        }
        found.append(counts | costs)
    return found


def main() -> None:
    """Measure and print."""
    for sheet in sheets.of(
        "limit", {"isolation": isolation(), "whole_tests": whole_tests(server_url())}
    ):
        Console().print(sheets.table(sheet))


if __name__ == "__main__":
    main()
