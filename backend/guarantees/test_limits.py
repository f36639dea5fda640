"""docs/limits.md: each row of its tables is as the page says."""

import re

import pytest

from guarantees.factories import write_on_both_paths
from guarantees.project import CONFTEST, ROOT, Project
from guarantees.report import how_many_ran_again, ran_again
from guarantees.servers import Database

PAGE = (ROOT / "docs/limits.md").read_text(encoding="utf-8")
# What a test sees by rollback, and otherwise in production: by how its row begins.
SEEN = {
    "`now()`": """
    first = await scalar(a, "SELECT now()")
    await a.commit()
    assert (await scalar(a, "SELECT now()") == first) is rolled_back
""",
    "`NOTIFY`": """
    async with apps_engine.connect() as listener:
        await scalar(listener, "LISTEN news")
        await listener.commit()
        heard = await scalar(listener, "SELECT count(*) FROM pg_listening_channels()")
        await scalar(listener, "UNLISTEN news")
        await listener.commit()
    assert heard == (0 if rolled_back else 1)
""",
    "transaction ids": """
    first = await scalar(a, "SELECT pg_current_xact_id()::text")
    await a.commit()
    assert (await scalar(b, "SELECT pg_current_xact_id()::text") == first) is rolled_back
""",
    "a row lock that an earlier transaction": """
    await scalar(a, "SELECT id FROM users FOR UPDATE")
    await a.commit()
    await scalar(a, "SELECT id FROM users FOR UPDATE")
    free = await scalar(b, "SELECT id FROM users FOR UPDATE SKIP LOCKED")
    assert free == (1 if rolled_back else None)
""",
    "an advisory lock taken in a database function": """
    await scalar(a, "SELECT lock_it()")
    await a.commit()
    assert await scalar(b, "SELECT pg_try_advisory_xact_lock(5)") is rolled_back
""",
    "`TRUNCATE`, `ALTER TABLE` or `LOCK TABLE`": """
    await scalar(a, "SELECT count(*) FROM users")
    await b.execute(sa.text("SET LOCAL lock_timeout = '50ms'"))
    with does_not_raise() if rolled_back else pytest.raises(sa.exc.DBAPIError, match="timeout"):
        await b.execute(sa.text("LOCK TABLE users"))
    await b.rollback()
""",
    "`lastval()`, `currval()`": """
    await scalar(a, "SELECT nextval('roles_id_seq')")
    with does_not_raise() if rolled_back else pytest.raises(sa.exc.DBAPIError, match="currval"):
        await scalar(b, "SELECT currval('roles_id_seq')")
    await b.rollback()
""",
    "`pg_advisory_xact_lock`": """
    await scalar(a, "SELECT pg_advisory_xact_lock(6)")
    await a.commit()
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 6"
    assert await scalar(b, held) == (1 if rolled_back else 0)
""",
    "a setting changed by a view or": """
    await scalar(a, "SELECT it FROM remembered")
    await scalar(b, "SELECT 1")
    tenant = await scalar(a, "SELECT current_setting('app.tenant', true)")
    assert (tenant or "") == ("" if rolled_back else "1")
""",
    "a DBAPI cursor": """
    await in_cursor(a, "UPDATE users SET desk = 2")
    assert await scalar(b, "SELECT desk FROM users") == (2 if rolled_back else None)
    async with apps_engine.connect() as forgotten:
        insert = "INSERT INTO users (email) VALUES ('joan')"
        await forgotten.run_sync(lambda sync: sync.connection.cursor().execute(insert))
    assert await scalar(b, "SELECT count(*) FROM users") == (2 if rolled_back else 1)
""",
    "an undersized pool": """
    sessions = [SessionLocal() for _ in range(20)]
    try:
        for each in sessions:
            await scalar(each, "SELECT 1")
        assert rolled_back
    except sa.exc.TimeoutError:
        assert not rolled_back
    finally:
        for each in sessions:
            await each.close()
""",
}
# What differs from production on both paths.
BOTH_PATHS = {
    "an engine whose URL names another role": """
    assert apps_engine.url.username == "nobody"
    assert await scalar(a, "SELECT current_user") != "nobody"
""",
    "a setting with a dot in its name": """
    async with apps_engine.connect() as held:
        await scalar(held, "SELECT set_config('app.other', '1', true)")
        await held.rollback()
        assert await scalar(held, "SELECT current_setting('app.other', true)") == ""
""",
    "a response that is sent before `get_db` commits": """
    assert (await client.post("/late/joan")).status_code == 200
    assert await scalar(a, "SELECT count(*) FROM users") == 2
""",
    "an in-process cache": """
    CACHE.setdefault(await scalar(a, "SELECT max(id) FROM users"), rolled_back)
    assert CACHE == {1: True}  # of the first of both tests
""",
    "`db`, the test's own session": """
    user = await db.scalar(sa.select(User))
    user.desk
    await scalar(a, "UPDATE users SET desk = 5")
    await a.commit()
    assert (await db.scalar(sa.select(User))).desk == 5
    own = await b.scalar(sa.select(User))
    await scalar(a, "UPDATE users SET desk = 6")
    await a.commit()
    assert (await b.scalar(sa.select(User))).desk == 5
""",
    "rows without ORDER BY": """
    await scalar(a, "INSERT INTO users (email) SELECT 'b' || n FROM generate_series(1, 3) AS n")
    await a.commit()
""",
    "the lifespan": """
    assert LIFESPANS == []
""",
}
# What cannot be served, so that the test runs again: by how its row begins.
AGAIN = {
    "a session runs SQL while another": """
    await scalar(a, "UPDATE users SET desk = 1")
    await scalar(b, "SELECT 1")
""",
    "a session sees another's uncommitted settings": """
    await scalar(a, "SET LOCAL work_mem = 64")
    await scalar(b, "SELECT 1")
""",
    "`SET` without `LOCAL`": """
    await scalar(a, "SET app.tenant = '1'")
    await a.commit()
""",
    "temporary objects": """
    await scalar(a, "CREATE TEMP TABLE short () ON COMMIT DROP")
    await a.commit()
    assert await scalar(a, "SELECT to_regclass('short') IS NULL")
""",
    "`pg_advisory_lock`": """
    assert await scalar(a, "SELECT pg_try_advisory_lock(1)")
    assert not await scalar(b, "SELECT pg_try_advisory_lock(1)")
""",
    "`COMMIT`": """
    await scalar(a, "COMMIT")
""",
    "connection isolation level": """
    await a.connection(execution_options={"isolation_level": "SERIALIZABLE"})
""",
    "`session.stream()`": """
    await a.stream(sa.select(User))
""",
    "the driver's own": """
    connection = await a.connection()
    (await connection.get_raw_connection()).driver_connection
""",
    "a statement that was prepared before": """
    await scalar(b, "SELECT * FROM users")
    await a.connection()
    await scalar(b, "ALTER TABLE users DROP desk")
    await b.commit()
    await scalar(a, "SELECT * FROM users")
""",
    "a value that is added to an enum": """
    await scalar(a, "ALTER TYPE mood ADD VALUE 'happy'")
    await a.commit()
    assert await scalar(a, "SELECT 'happy'::mood::text") == "happy"
""",
    "work after a cancelled statement": """
    await scalar(a, "SELECT 1")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await scalar(a, "SELECT pg_sleep(10)")
    with pytest.raises(sa.exc.PendingRollbackError):
        await a.commit()
    await a.rollback()
""",
    "`SET CONSTRAINTS ALL IMMEDIATE`": """
    await scalar(a, "SET CONSTRAINTS ALL IMMEDIATE")
""",
    "the connection is lost": """
    with pytest.raises(sa.exc.DBAPIError):
        await scalar(a, "SELECT pg_terminate_backend(pg_backend_pid())")
""",
    "another event loop": """
    def elsewhere():
        async def read():
            async with SessionLocal() as session:
                return await scalar(session, "SELECT 1")
        return asyncio.run(read())
    assert await asyncio.to_thread(elsewhere) == 1
""",
    "the figures of the pool": """
    assert apps_engine.pool.size() == 5
""",
    "an engine no factory uses": """
    other = sa.ext.asyncio.create_async_engine(apps_engine.url)
    async with other.connect() as connection:
        assert await connection.scalar(sa.text("SELECT count(*) FROM users")) == 1
    await other.dispose()
""",
}
SOURCE = """
from contextlib import nullcontext as does_not_raise

async def scalar(session, statement):
    result = await session.execute(sa.text(statement))
    return result.scalar() if result.returns_rows else None

async def in_cursor(session, statement):
    connection = await session.connection()
    await connection.run_sync(lambda sync: sync.connection.cursor().execute(statement))

from app.db import engine as apps_engine, get_db

LIFESPANS, CACHE = [], {}

@app.on_event("startup")
async def start(): LIFESPANS.append(1)

async def commits_late():
    async with SessionLocal() as session:
        yield session
        await session.commit()

from typing import Annotated
from fastapi import Depends

@app.post("/late/{email}")
async def write(email: str, session: Annotated[object, Depends(commits_late)]) -> None:
    session.add(User(email=email))

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
TABLES = {
    "## With rollback": SEEN,
    "## On both paths": BOTH_PATHS,
    "## What runs again with real commits": AGAIN,
}
# Rows that other tests reproduce: test_run_again, test_copied_engines, and those of real commits.
ELSEWHERE = {"a rerun", "`connect_args` that only the driver sees"}


def write_each(project: Project, bodies: dict[str, str]) -> None:
    """Write a test of each body."""
    head = "async def test_{}(sessions, rolled_back, client, db):\n    a, b = sessions"
    tests = (head.format(number) + body for number, body in enumerate(bodies.values()))
    write_on_both_paths(project, SOURCE + "\n".join(tests))


def test_by_rollback_a_test_sees_what_the_page_says(project: Project) -> None:
    project.extend_schema(REMEMBERED)
    project.app_engine("", "pool_timeout=0.2")
    write_each(project, SEEN)

    result = project.run("--refusals-fail")

    result.assert_outcomes(passed=2 * len(SEEN))


def test_on_both_paths_a_test_sees_what_the_page_says(project: Project) -> None:
    write_each(project, BOTH_PATHS)

    result = project.run("-W", "ignore::DeprecationWarning")

    result.assert_outcomes(passed=2 * len(BOTH_PATHS))
    assert ran_again(result) == {}


def test_what_the_page_says_runs_again_does(project: Project) -> None:
    project.extend_schema("CREATE TYPE mood AS ENUM ('sad')")
    write_each(project, AGAIN)

    result = project.run()

    result.assert_outcomes(passed=2 * len(AGAIN))
    assert how_many_ran_again(result) == len(AGAIN)


@pytest.mark.parametrize(("heading", "reproduced"), TABLES.items())
def test_the_page_has_no_row_that_is_not_reproduced(
    heading: str, reproduced: dict[str, str]
) -> None:
    table = PAGE.partition(f"{heading}\n")[2].partition("\n## ")[0]

    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)[1:]

    known = (*reproduced, *ELSEWHERE)
    assert [row for row in rows if not row.startswith((*known, "---"))] == []
    assert [begin for begin in reproduced if not any(row.startswith(begin) for row in rows)] == []


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


def test_an_asynchronous_test_of_another_folder_runs_without_a_marker(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\nasyncio_mode = strict\n")
    project.write("other/test_it.py", "async def test_it(): pass")
    project.write("tests/test_it.py", "async def test_it(db): pass")

    result = project.run("other", "tests")

    result.assert_outcomes(passed=2)


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


def test_the_last_test_of_a_module_runs_again_with_new_fixtures_of_that_scope(
    project: Project,
) -> None:
    project.write("tests/test_next.py", "def test_next(): pass")
    write_on_both_paths(
        project,
        """
made = []

@pytest.fixture(scope="module")
def wide():
    made.append("wide")

@pytest.mark.parametrize("which", ["last but one", "last"])
async def test_it(db, wide, which):
    await db.execute(sa.text("COMMIT"))
    assert len(made) == 1
""",
    )

    result = project.run("-k", "savepoints or next")

    result.assert_outcomes(passed=2, failed=1, deselected=2)
    assert list(ran_again(result)) == ["test_it[savepoints-last but one]"]


def test_through_the_engine_of_another_database_the_tables_of_the_first_are_reached(
    project: Project,
) -> None:
    project.write(
        "app/other.py",
        """
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

Other = async_sessionmaker(create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/other"))
""",
    )
    project.isolate("", "from app.other import Other")
    project.replace(CONFTEST, "sessions=[SessionLocal]", "sessions=[SessionLocal, Other]")
    write_on_both_paths(
        project,
        """
from app.other import Other

async def test_it(client):
    await client.post("/users/ada")
    async with Other() as other:
        assert (await other.scalars(sa.select(User.email))).all() == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_setting_with_a_dot_that_a_listener_makes_is_lost(project: Project) -> None:
    project.app_engine(
        "@sa.event.listens_for(engine.sync_engine, 'connect')\n"
        "def set_it(new, _): new.cursor().execute(\"SET app.tenant = 'acme'\")"
    )
    write_on_both_paths(
        project,
        """
@pytest.mark.parametrize("time", [1, 2])
async def test_it(db, time, transactions_are):
    tenant = sa.select(sa.func.current_setting("app.tenant", True))
    is_rolled_back = transactions_are == "savepoints"
    assert (await db.scalar(tenant) == "acme") is (is_rolled_back or time == 1)
    await db.execute(sa.text("SELECT 1"))
    await db.commit()
    assert (await db.scalar(tenant) == "acme") is (not is_rolled_back and time == 1)
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert ran_again(result) == {}
