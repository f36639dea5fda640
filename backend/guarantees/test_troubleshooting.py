"""Each error of docs/troubleshooting.md, reproduced: what it is about has not been made up."""

import re

import pytest

from guarantees.conftest import HERE, Project

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
    "got Future": """
@pytest.mark.fresh_database
@pytest.mark.asyncio(loop_scope="function")
async def test_it(client): await client.get("/users/count")
""",
    "Refused: a statement on another event loop": """
from starlette.testclient import TestClient

def test_it(app): TestClient(app).get("/users/count")

@pytest.mark.asyncio(loop_scope="function")
async def test_with_a_scope(client): await client.get("/users/count")
""",
    "cannot perform operation": """
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
    "Refused: two sessions of this test have blocked each other": """
async def test_it(get_db_session):
    wrote, read = asyncio.Event(), asyncio.Event()

    async def write():
        async with get_db_session() as session:
            await session.execute(sa.insert(User).values(email="ada"))
            wrote.set()
            await read.wait()

    async def look():
        await wrote.wait()
        async with get_db_session() as session:
            await session.execute(sa.select(1))
        read.set()

    await asyncio.gather(write(), look())
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
async def test_it(engine, transactions):
    async with engine.connect() as connection: await connection.execute(sa.text("SELECT 1"))
""",
    "Refused: the isolation level of a test's transaction is fixed": """
async def test_it(db):
    await db.connection(execution_options={"isolation_level": "SERIALIZABLE"})
""",
    "source database": """
@pytest.mark.fresh_database
async def test_it(fresh_database):
    async with fresh_database.connect(), fresh_database.connect() as other:
        await other.execution_options(isolation_level="AUTOCOMMIT")
        await other.execute(sa.text(f"CREATE DATABASE copy TEMPLATE {fresh_database.url.database}"))
""",
}
# These end the run, and stand in the files that are named below.
ELSEWHERE = [
    "PostgreSQL has no connection left",
    "PostgreSQL has no room left for its data",
    "create_schema failed",
    "TEST_DATABASE_URL \u2026; PostgreSQL with an async driver is needed",
    "the role \u2026 may not create databases",
]


@pytest.mark.parametrize("error", ERRORS)
def test_it_is_what_a_test_ends_in(project: Project, error: str) -> None:
    project.replace("tests/conftest.py", "PATIENCE = 20", "PATIENCE = 1")
    project.write("tests/test_it.py", IMPORTS + ERRORS[error])

    result = project.run()

    assert result.parseoutcomes().get("passed") is None
    result.stdout.fnmatch_lines([f"E *{error}*"])


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
