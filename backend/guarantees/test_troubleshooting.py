"""Each error of docs/troubleshooting.md, reproduced: what it is about has not been made up."""

import re

import pytest

from guarantees.project import HERE, Project

PAGE = HERE.parent.parent / "docs" / "troubleshooting.md"
IMPORTS = """
import asyncio
import pytest
import sqlalchemy as sa
from app.db import SessionLocal, engine as apps_engine
from app.models import User
"""
# The start of a heading, and a test that ends in that error.
ERRORS = {
    "Refused: a statement on another event loop": """
from starlette.testclient import TestClient

def test_it(app): TestClient(app).get("/users/count")
""",
    "cannot perform operation": """
@pytest.mark.fresh_database
async def test_it(db_transaction):
    raw = (await db_transaction.get_raw_connection()).driver_connection
    await asyncio.gather(raw.execute("SELECT pg_sleep(0.1)"), raw.execute("SELECT 1"))
""",
    'savepoint "sa_savepoint_': """
async def test_it(db_transaction):
    options = {"bind": db_transaction, "join_transaction_mode": "create_savepoint"}
    await db_transaction.execute(sa.text("SELECT 1"))
    async with SessionLocal(**options) as first, SessionLocal(**options) as second:
        await first.execute(sa.text("SELECT 1"))
        await second.execute(sa.text("SELECT 1"))
        await first.commit()
        await second.commit()
""",
    "Refused: another session of this test holds changes, or an error": """
async def test_it(client, db):
    db.add(User(email="ada"))
    await db.flush()
    await client.get("/users/count")
""",
    "Refused: this would end the transaction of the test": """
async def test_it(db): await db.execute(sa.text("COMMIT"))
""",
    "Refused: a connection to database": """
async def test_it():
    async with apps_engine.connect(): pass
""",
    "Refused: a connection by the driver itself, past SQLAlchemy": """
import asyncpg
async def test_it(): await asyncpg.connect("postgresql://127.0.0.1:1/production")
""",
    "Refused: a statement outside the transaction of a test": """
async def test_1_keeps_a_session(get_db_session):
    global kept
    kept = get_db_session()
    await kept.execute(sa.text("SELECT 1"))
    pytest.skip("the next one is looked at")

async def test_2_uses_it(db): await kept.execute(sa.text("SELECT 1"))
""",
    "Refused: the driver's own connection": """
async def test_it(db_transaction):
    (await db_transaction.get_raw_connection()).driver_connection.is_closed()
""",
    "Refused: a cursor on the server": """
async def test_it(db): await db.stream(sa.select(User))
""",
    "Refused: an advisory lock of the session": """
async def test_it(db): await db.execute(sa.text("SELECT pg_advisory_lock(1)"))
""",
    "Refused: the connection of the test was lost": """
async def test_it(db): await db.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
""",
    "Refused: another session of this test has made settings": """
async def test_it(get_db_session):
    async with get_db_session() as one, get_db_session() as other:
        await one.execute(sa.text("SET LOCAL work_mem = '1MB'"))
        await other.execute(sa.text("SELECT 1"))
""",
    "Refused: isolation level and access mode of a test's transaction are fixed": """
async def test_it(db):
    await db.connection(execution_options={"isolation_level": "SERIALIZABLE"})
""",
    "source database": """
@pytest.mark.fresh_database
async def test_it(fresh_database, fresh_database_url):
    name = fresh_database_url.database
    async with fresh_database.connect(), fresh_database.connect() as other:
        await other.execution_options(isolation_level="AUTOCOMMIT")
        await other.execute(sa.text(f"CREATE DATABASE copy TEMPLATE {name}"))
""",
}
# These end the run, and stand in the files that are named below.
ELSEWHERE = [
    "PostgreSQL has no connection left",
    "PostgreSQL has no room left for its data",
    "create_schema failed",
    "TEST_DATABASE_URL \u2026; PostgreSQL with an async driver is needed",
    "the role \u2026 may not create databases",
    "it is read-only",
    "track_counts is off",
    "pytest-asyncio \u2026 cannot run all tests on one event loop",
]


@pytest.mark.parametrize("error", ERRORS)
def test_it_is_what_a_test_ends_in(project: Project, error: str) -> None:
    project.write("tests/test_it.py", IMPORTS + ERRORS[error])

    result = project.run("--refusals-fail")

    assert result.parseoutcomes().get("passed") is None
    result.stdout.fnmatch_lines([f"*{error}*"])


def test_the_page_has_no_error_that_is_not_reproduced() -> None:
    headings = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    names = ("errors", "crash", "no_setup_mishaps")
    elsewhere = "".join((HERE / f"test_{name}.py").read_text() for name in names)

    for heading in headings:
        known = heading in ELSEWHERE or any(heading.startswith(error) for error in ERRORS)
        assert known, heading
    for error in ELSEWHERE:
        said = error.replace("PostgreSQL has", "has").split(" \u2026")[0]
        assert error in headings, error
        assert said.split()[-1] in elsewhere, error
