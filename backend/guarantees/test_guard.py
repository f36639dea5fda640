"""Promise 6: no engine reaches any database but the test's own, and no foreign one is touched."""

import asyncio

import pytest
from sqlalchemy import make_url

from benchmark.server import create_database, drop_database
from guarantees.conftest import Database, Project

# Each line would connect past the test's transaction.
BYPASSES = {
    "the app's engine": "async with engine.connect(): pass",
    "an engine of its own": "async with create_async_engine(URL).connect(): pass",
    "the test's own server": "async with create_async_engine(SERVER).connect(): pass",
    "a synchronous engine": "sa.create_engine('sqlite://').connect()",
    "a session without a fixture": "async with SessionLocal() as s: await s.connection()",
    "the driver itself": "await asyncpg.connect(DSN)",
    "a function of the driver": "await connect(DSN)",
    "a pool of the driver": "async with asyncpg.create_pool(DSN): pass",
}


@pytest.mark.parametrize("line", BYPASSES.values(), ids=list(BYPASSES))
def test_a_bypass_fails_at_its_line_and_names_the_fix(project: Project, line: str) -> None:
    project.write(
        "tests/test_it.py",
        f"""
import os
import asyncpg
import sqlalchemy as sa
from asyncpg import connect
from sqlalchemy.ext.asyncio import create_async_engine
from app.db import SessionLocal, engine
URL = "postgresql+asyncpg://somebody:s3cret@127.0.0.1:1/production"
SERVER = os.environ["TEST_DATABASE_URL"]
DSN = SERVER.replace("+asyncpg", "")

async def test_it():
    try:
        {line}
    except Exception:
        pass  # an application that catches everything must not hide it
""",
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_it.py:*", "*Failed: Refused: a connection *"])
    result.stdout.fnmatch_lines(["*SESSION_FACTORIES*"])
    result.stdout.no_fnmatch_line("*s3cret@*Refused*")


def test_the_engine_of_the_tests_is_of_no_use_outside_a_test(project: Project) -> None:
    project.write(
        "tests/test_it.py",
        """
import sqlalchemy as sa

async def test_without_a_transaction(engine, transactions):
    async with engine.connect() as connection:
        await connection.execute(sa.text("CREATE TABLE trace ()"))

async def test_the_next_test_finds_no_trace(db):
    assert await db.scalar(sa.text("SELECT to_regclass('trace')")) is None
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E * Refused: a statement outside the transaction of a test.*"])


def test_the_named_database_and_a_look_alike_stay_as_they_were(
    project: Project, database: Database
) -> None:
    look_alike = "fastapi_conftest_999_main"
    database.query("CREATE TABLE precious AS SELECT 42 AS answer")
    asyncio.run(create_database(make_url(database.url), look_alike))
    project.write("tests/test_it.py", "async def test_it(client): await client.post('/users/ada')")

    project.run().assert_outcomes(passed=1)

    tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    left = database.query("SELECT datname::text FROM pg_database WHERE datname = :n", n=look_alike)
    assert database.query(tables) == ["precious"]
    assert database.query("SELECT answer FROM precious") == [42]
    assert left == [look_alike]
    database.query("DROP TABLE precious")
    asyncio.run(drop_database(make_url(database.url), look_alike))
