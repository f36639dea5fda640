"""docs/limits.md: each row of its tables is as the page says."""

import re

import pytest

from guarantees.factories import write_on_both_paths
from guarantees.project import ROOT, Project
from guarantees.report import ran_again
from guarantees.servers import Database

PAGE = (ROOT / "docs/limits.md").read_text(encoding="utf-8")
# What a test sees in one rolled-back transaction, and otherwise in production: by how the row of
# the first table begins.
SEEN = {
    "`now()`": """
    first = await scalar(a, "SELECT now()")
    await a.commit()
    assert (await scalar(a, "SELECT now()") == first) is rolled_back
""",
    "`NOTIFY`": """
    await scalar(a, "LISTEN news")
    await a.commit()
    channels = await scalar(a, "SELECT count(*) FROM pg_listening_channels()")
    assert channels == (0 if rolled_back else 1)
""",
    "`ON COMMIT DROP`": """
    await scalar(a, "CREATE TEMP TABLE short () ON COMMIT DROP")
    await a.commit()
    assert await scalar(a, "SELECT to_regclass('short') IS NOT NULL") is rolled_back
""",
    "transaction ids": """
    first = await scalar(a, "SELECT pg_current_xact_id()::text")
    await a.commit()
    assert (await scalar(b, "SELECT pg_current_xact_id()::text") == first) is rolled_back
""",
    "`SET` without `LOCAL`": """
    await scalar(a, "SET app.tenant = '1'")
    await a.commit()
    tenant = await scalar(a, "SELECT current_setting('app.tenant', true)")
    assert (tenant or "") == ("" if rolled_back else "1")
""",
    "a setting with a dot in its name": """
    await scalar(a, "SELECT set_config('app.other', '1', true)")
    await a.rollback()
    assert await scalar(a, "SELECT current_setting('app.other', true)") == ""
""",
    "a row that the test has locked before": """
    await scalar(a, "SELECT id FROM users FOR UPDATE")
    await a.commit()
    await scalar(a, "SELECT id FROM users FOR UPDATE")
    free = await scalar(b, "SELECT id FROM users FOR UPDATE SKIP LOCKED")
    assert free == (1 if rolled_back else None)
""",
    "an advisory lock of the session that a function takes": """
    await scalar(a, "SELECT lock_it()")
    await a.commit()
    assert await scalar(b, "SELECT pg_try_advisory_xact_lock(5)") is rolled_back
""",
    "a setting that its statement does not show": """
    await scalar(a, "SELECT it FROM remembered")
    await scalar(b, "SELECT 1")
    tenant = await scalar(a, "SELECT current_setting('app.tenant', true)")
    assert (tenant or "") == ("" if rolled_back else "1")
""",
    "the isolation level that the engine was made with": """
    level = await scalar(a, "SHOW transaction_isolation")
    assert level == ("read committed" if rolled_back else "serializable")
""",
    "a cursor of the DBAPI": """
    await in_cursor(a, "UPDATE users SET desk = 2")
    assert await scalar(b, "SELECT desk FROM users") == (2 if rolled_back else None)
""",
}
# What cannot be served, so that the test runs again: by how the row of the second table begins.
AGAIN = {
    "one session executes a statement": """
    await scalar(a, "UPDATE users SET desk = 1")
    await scalar(b, "SELECT 1")
""",
    "a session has made settings": """
    await scalar(a, "SET LOCAL work_mem = 64")
    await scalar(b, "SELECT 1")
    await scalar(a, "SHOW work_mem")
""",
    "`COMMIT`": """
    await scalar(a, "COMMIT")
""",
    "`pg_advisory_lock`": """
    assert await scalar(a, "SELECT pg_try_advisory_lock(1)")
    await a.commit()
    assert not await scalar(b, "SELECT pg_try_advisory_lock(1)")
""",
    "an isolation level": """
    await a.connection(execution_options={"isolation_level": "SERIALIZABLE"})
""",
    "`session.stream()`": """
    await a.stream(sa.select(User))
""",
    "the driver's own": """
    connection = await a.connection()
    (await connection.get_raw_connection()).driver_connection
""",
    "a statement prepared before": """
    await scalar(b, "SELECT * FROM users")
    await a.connection()
    await scalar(b, "ALTER TABLE users DROP desk")
    await b.commit()
    await scalar(a, "SELECT * FROM users")
""",
    "the connection is lost": """
    with pytest.raises(sa.exc.DBAPIError):
        await scalar(a, "SELECT pg_terminate_backend(pg_backend_pid())")
""",
}
SOURCE = """
async def scalar(session, statement):
    result = await session.execute(sa.text(statement))
    return result.scalar() if result.returns_rows else None

async def in_cursor(session, statement):
    connection = await session.connection()
    await connection.run_sync(lambda sync: sync.connection.cursor().execute(statement))

@pytest.fixture
def rolled_back(transactions_are):
    return transactions_are == "savepoints"

@pytest.fixture
async def sessions(db):
    db.add(User(email="ada"))
    await db.commit()
    async with SessionLocal() as a, SessionLocal() as b:
        yield a, b
"""
REMEMBERED = """
CREATE VIEW remembered AS SELECT set_config('app.tenant', '1', true) AS it;
CREATE FUNCTION lock_it() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(5)'
"""
FIRST = "| inside one rolled-back transaction | what you see |"
SECOND = "| what the test does | why a rolled-back transaction cannot |"


def write_each(project: Project, bodies: dict[str, str]) -> None:
    """Write a test of each body."""
    head = "async def test_{}(sessions, rolled_back):\n    a, b = sessions"
    tests = (head.format(number) + body for number, body in enumerate(bodies.values()))
    write_on_both_paths(project, SOURCE + "\n".join(tests))


def test_inside_one_transaction_a_test_sees_what_the_page_says(project: Project) -> None:
    project.extend_schema(REMEMBERED)
    project.make_engine(
        'return create_async_engine(url, **{"isolation_level": "SERIALIZABLE"} | options)'
    )
    write_each(project, SEEN)

    result = project.run("--refusals-fail")

    result.assert_outcomes(passed=2 * len(SEEN))


def test_what_the_page_says_runs_again_does(project: Project) -> None:
    write_each(project, AGAIN)

    result = project.run()

    result.assert_outcomes(passed=2 * len(AGAIN))
    assert set(ran_again(result)) == {f"test_{number}[savepoints]" for number in range(len(AGAIN))}


@pytest.mark.parametrize(("heading", "reproduced"), [(FIRST, SEEN), (SECOND, AGAIN)])
def test_the_page_has_no_row_that_is_not_reproduced(
    heading: str, reproduced: dict[str, str]
) -> None:
    table = PAGE.partition(f"{heading}\n|---|---|\n")[2].partition("\n\n")[0]

    rows = re.findall(r"^\| (.*) \| .* \|$", table, re.MULTILINE)

    assert [row for row in rows if not row.startswith(tuple(reproduced))] == []
    assert len(rows) == len(reproduced)


def test_what_real_commits_do_to_the_server_stays(project: Project, database: Database) -> None:
    write_on_both_paths(
        project,
        """
@pytest.mark.fresh_database
async def test_it(db):
    await db.execute(sa.text("CREATE ROLE made_by_a_test"))
    await db.commit()
""",
    )

    result = project.run("-k", "real")

    result.assert_outcomes(passed=1, deselected=1)
    made = database.query("SELECT rolname FROM pg_roles WHERE rolname = 'made_by_a_test'")
    assert made == ["made_by_a_test"]
    database.query("DROP ROLE made_by_a_test")


def test_the_last_test_runs_again_on_another_loop(project: Project) -> None:
    project.write(
        "tests/test_it.py",
        """
import asyncio
import pytest
import sqlalchemy as sa

QUEUE = asyncio.Queue()

@pytest.mark.parametrize("which", ["last but one", "last"])
async def test_it(db, which):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(QUEUE.get(), 0.01)
    await db.execute(sa.text("COMMIT"))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1, failed=1)
    assert list(ran_again(result)) == ["test_it[last but one]"]
    result.stdout.fnmatch_lines(["*is bound to a different event loop*"])
