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
    "Refused: a connection of the application outside a test": """
async def test_it():
    async with apps_engine.connect(): pass
""",
    "Refused: a connection to": """
async def test_it():
    url = apps_engine.url.set(database="another")
    async with sa.ext.asyncio.create_async_engine(url).connect(): pass
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
    "Refused: fresh_database in a test that has begun without it": """
async def test_it(db, request): request.getfixturevalue("fresh_database")
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
    "Refused: a setting of the session, which outlasts its transaction": """
async def test_it(db):
    await db.execute(sa.text("SET app.tenant = '1'"))
    await db.commit()
""",
    "Refused: a temporary object, a cursor or a prepared statement": """
async def test_it(db):
    await db.execute(sa.text("CREATE TEMP TABLE short ()"))
    await db.commit()
""",
    "Refused: work after a cancelled statement": """
async def test_it(db):
    await db.execute(sa.text("SELECT 1"))
    try:
        async with asyncio.timeout(0.05):
            await db.execute(sa.text("SELECT pg_sleep(10)"))
    except TimeoutError:
        await db.commit()
""",
    "Refused: a wait of 10 s for another session": """
async def test_it(get_db_session):
    async with get_db_session() as one, get_db_session() as other:
        await asyncio.gather(one.execute(sa.text("SELECT pg_sleep(11)")), other.connection(),
                             other.execute(sa.text("SELECT 1")))
""",
    "Refused: an engine of the application that the transaction of the test does not reach": """
async def test_it(db):
    async with sa.ext.asyncio.create_async_engine(apps_engine.url).connect(): pass
""",
    "canceling statement due to lock timeout": """
@pytest.mark.fresh_database
async def test_it(db, get_db_session):
    db.add(User(email="ada"))
    await db.commit()
    await db.execute(sa.text("UPDATE users SET desk = 1"))
    async with get_db_session() as other:
        await other.execute(sa.text("DELETE FROM users"))
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
# These end the run, are of another version, or need a server of their own: who reproduces them.
ELSEWHERE = {
    "Event loop is closed": "test_the_aliases_work_together",
    "Refused: a connection that was opened before the tests": (
        "test_a_connection_that_is_held_from_before_is_refused"
    ),
    "PostgreSQL has no connection left": "test_a_server_with_too_few_connections_is_named",
    "PostgreSQL has no room left for its data": "test_memory_that_fills_is_named",
    "create_schema failed": "test_a_schema_that_cannot_be_created_is_told",
    "Only this process knows the tables": "test_a_model_that_only_the_workers_know_is_told",
    "TEST_DATABASE_URL names": "test_a_wrong_url_is_refused",
    "the role \u2026 may not create databases": "test_a_role_that_may_not_create_databases_is_told",
    "it is read-only": "test_a_server_whose_settings_do_not_serve_is_named",
    "track_counts is off": "test_a_server_whose_settings_do_not_serve_is_named",
    "\u2026 is too old": "test_a_package_that_is_too_old_is_told",
    "\u2026 does not end, and has": "test_a_thread_that_goes_on_all_the_same_ends_the_run",
    "More than one conftest has called": "test_a_second_copy_in_the_run_is_told",
}


@pytest.mark.parametrize("error", ERRORS)
def test_it_is_what_a_test_ends_in(project: Project, error: str) -> None:
    project.write("tests/test_it.py", IMPORTS + ERRORS[error])

    result = project.run("--refusals-fail")

    assert result.parseoutcomes().get("passed") is None
    result.stdout.fnmatch_lines([f"*{error}*"])


def test_each_error_of_the_page_is_reproduced() -> None:
    headings = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    tests = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py"))
    known = {**dict.fromkeys(ERRORS, ""), **ELSEWHERE}

    for heading in headings:
        assert [begin for begin in known if heading.startswith(begin)], heading
    for begin, test in known.items():
        assert [heading for heading in headings if heading.startswith(begin)], begin
        assert f"def {test}" in tests, test
