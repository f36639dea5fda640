"""Promise 4: with real commits tests have real connections, which are kept, reset or ended."""

from __future__ import annotations

import itertools

import pytest

from guarantees.looking import LOOK
from guarantees.project import Project
from guarantees.report import causes, counts
from guarantees.servers import own_server, url_of


def test_connections_are_kept_from_test_to_test(project: Project) -> None:
    project.write(
        "tests/test_it.py",
        """
import pytest
import sqlalchemy as sa

pytestmark = pytest.mark.fresh_database
PIDS = set()

@pytest.mark.parametrize("number", range(5))
async def test_it(db, number):
    PIDS.add(await db.scalar(sa.text("SELECT pg_backend_pid()")))
    assert len(PIDS) <= 2  # db_transaction has one, too
""",
    )

    result = project.run()

    result.assert_outcomes(passed=5)


def test_hundreds_of_tests_on_hundreds_of_tables_stay_fast(project: Project) -> None:
    tables = (f"CREATE TABLE t_{n} (id serial PRIMARY KEY, note text)" for n in range(200))
    project.extend_schema(";\n".join(tables))
    project.write(
        "tests/test_it.py",
        """
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

pytestmark = pytest.mark.fresh_database

@pytest.mark.parametrize("number", range(300))
async def test_it(db, number):
    with Path("times.txt").open("a") as file:
        print(time.perf_counter(), file=file)
    table = f"t_{number % 10}"
    query = sa.text(f"INSERT INTO {table} (note) SELECT 'x' FROM generate_series(1, 9)")
    await db.execute(query)
    await db.commit()
    assert await db.scalar(sa.text(f"SELECT max(id) FROM {table}")) == 9
""",
    )

    result = project.run()

    result.assert_outcomes(passed=300)
    assert counts(result) == (300, 0, 0)
    lines = (project.path / "times.txt").read_text(encoding="utf-8").split()
    times = [float(line) for line in lines]
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert min(steps[-100:]) < 3 * min(steps[:100])


OTHERS = """
import subprocess
import sys

async def test_1_two_phases(db):
    for statement in "INSERT INTO users (email) VALUES ('ada')", "PREPARE TRANSACTION 'first'":
        await db.execute(sa.text(statement))

async def test_2_look(db): await look(db)

async def start(url, script):
    global other
    url = url.set(drivername="postgresql").render_as_string(False)
    command = [sys.executable, "other.py", url, script]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert other.stdout.readline() == b"done\\n"

async def test_3_another_program_works(fresh_database_url):
    await start(fresh_database_url, "BEGIN; INSERT INTO users (email) VALUES ('other'); LOCK roles")

async def test_4_look(db):
    await look(db)
    other.kill()
    other.communicate()

async def test_5_another_program_idles(fresh_database_url):
    script = "CREATE TABLE of_other (); INSERT INTO users (email) VALUES ('o')"
    await start(fresh_database_url, script)

async def test_6_look(db):
    await look(db)
    other.kill()
    other.communicate()
"""


def test_prepared_transactions_and_sessions_of_other_programs_end(project: Project) -> None:
    project.write(
        "other.py",
        """
import asyncio, sys
import asyncpg

async def main():
    connection = await asyncpg.connect(sys.argv[1])
    await connection.execute(sys.argv[2])
    print("done", flush=True)
    await asyncio.sleep(99)

asyncio.run(main())
""",
    )
    project.write(
        "tests/test_it.py",
        LOOK + OTHERS,
    )

    with own_server("-c max_prepared_transactions=5 -c autovacuum=off") as server:
        project.environment["TEST_DATABASE_URL"] = url_of(server).render_as_string()
        result = project.run()

    result.assert_outcomes(passed=7)


@pytest.mark.parametrize("how", ["the option", "the argument"])
def test_a_whole_suite_runs_with_real_commits(project: Project, how: str) -> None:
    if how == "the argument":
        project.isolate("real_commits=True")
    project.write(
        "tests/test_it.py",
        """
import pytest
import sqlalchemy as sa

ID = sa.text("SELECT pg_current_xact_id()::text")

@pytest.mark.parametrize("time", range(3))
async def test_it(db, client, get_db_session, time):
    assert (await client.post("/users/ada")).status_code == 200
    assert (await client.get("/users/count")).json() == 1
    async with get_db_session() as other:
        assert await db.scalar(ID) != await other.scalar(ID)

def test_without_a_database(): pass
""",
    )

    result = project.run(*["--real-commits"] * (how == "the option"))

    result.assert_outcomes(passed=4)
    assert counts(result)[1:] == (0, 0)
    assert counts(result)[0] >= 3


def test_the_engine_is_on_the_database_of_the_tests_own_path(project: Project) -> None:
    project.write(
        "tests/test_it.py",
        """
import pytest
import sqlalchemy as sa

from app.db import SessionLocal, engine as apps_engine

NAME = sa.text("SELECT current_database()::text")
REAL = pytest.param("real", marks=pytest.mark.fresh_database)
seen = {}

@pytest.mark.parametrize("path", ["savepoints", REAL, "savepoints", REAL])
async def test_it(engine, path):
    async with engine.begin() as one, apps_engine.connect() as other, SessionLocal() as session:
        names = {await each.scalar(NAME) for each in (one, other, session)}
        assert (await one.scalar(sa.text("SELECT count(*) FROM users"))) == 0
        await one.execute(sa.text("INSERT INTO users (email) VALUES ('ada')"))
    assert len(names) == 1
    assert seen.setdefault(path, names) == names
    assert len({*map(frozenset, seen.values())}) == len(seen)
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)


def test_what_a_test_does_to_the_drivers_own_connection_ends_with_it(project: Project) -> None:
    project.write(
        "tests/test_it.py",
        """
import pytest
import sqlalchemy as sa

pytestmark = pytest.mark.fresh_database

async def number(connection):
    return await connection.scalar(sa.text("SELECT 5::int8"))

async def test_1_has_it_decode_numbers_otherwise(engine, override_get_db):
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        codec = {"encoder": str, "decoder": lambda _: -1, "schema": "pg_catalog"}
        await driver.set_type_codec("int8", **codec)
        assert await number(connection) == -1

async def test_2_has_numbers_as_ever(engine, override_get_db):
    async with engine.connect() as connection:
        assert await number(connection) == 5
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    ended = causes(result, "connection ended after the test")
    assert ended == {"its driver's own connection was handed out": 1}
