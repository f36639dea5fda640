"""Promise 3: a session that has only read is never refused, and a write is never missed."""

import pytest

from guarantees.factories import write_on_both_paths
from guarantees.project import Project
from guarantees.report import UNCOMMITTED, counts, how_many_ran_again, ran_again

# What looks like a write to whoever reads the text, and is none.
READS = """
READS = [
    "SELECT 'please update your profile; INSERT INTO users'",
    "SELECT 1 AS update, 2 AS insert",
    'SELECT id AS "delete from", email AS "UPDATE" FROM users',
    "WITH inserted AS (SELECT 1) SELECT * FROM inserted -- UPDATE users",
    "/* INSERT INTO users */ SELECT count(*) FROM users",
    "EXPLAIN INSERT INTO users (email) VALUES ('x')",
    "SHOW transaction_isolation",
    "TABLE users",
    "VALUES ('TRUNCATE users')",
    "SELECT pg_notify('news', 'DROP TABLE users')",
    "LOCK TABLE roles IN ACCESS SHARE MODE",
]
"""
# Each writes; some so that no word of the statement says it.
WRITES = """
from functools import partial

async def text(session, statement): await session.execute(sa.text(statement))

async def many(session):
    await session.execute(sa.insert(User), [{"email": "ada"}, {"email": "grace"}])

async def many_texts(session):
    rows = [{"email": "ada"}, {"email": "grace"}]
    await session.execute(sa.text("INSERT INTO users (email) VALUES (:email)"), rows)

async def of_driver(session):
    connection = await session.connection()
    await connection.exec_driver_sql("INSERT INTO users (email) VALUES ($1)", ("ada",))

async def without_parameters(session):
    connection = await session.connection(execution_options={"no_parameters": True})
    await connection.exec_driver_sql("INSERT INTO users (email) VALUES ('ada')")

async def by_cursor(session):
    connection = await session.connection()
    sql = "INSERT INTO users (email) VALUES ('ada')"
    await connection.run_sync(lambda sync: sync.connection.cursor().execute(sql))

async def by_copy(session):
    raw = await (await session.connection()).get_raw_connection()
    driver = raw.dbapi_connection.driver_connection
    if hasattr(driver, "copy_records_to_table"):
        await driver.copy_records_to_table("users", records=[("ada",)], columns=["email"])
    else:
        await driver.execute("INSERT INTO users (email) VALUES ('ada')")

async def flush(session):
    session.add(User(email="ada"))
    await session.flush()

async def nested(session):
    async with session.begin_nested():
        session.add(User(email="ada"))

WRITES = {
    "flush": flush,
    "nested": nested,
    "many": many,
    "many texts": many_texts,
    "driver": of_driver,
    "no_parameters": without_parameters,
    "cursor": by_cursor,
    "copy": by_copy,
} | {name: partial(text, statement=statement) for name, statement in {
    "function": "SELECT add('ada')",
    "function in FROM": "SELECT * FROM add('ada')",
    "procedure": "CALL enter('ada')",
    "block": "DO $$ BEGIN INSERT INTO users (email) VALUES ('ada'); END $$",
    "CTE": "WITH new AS (INSERT INTO users (email) VALUES ('ada') RETURNING 1) SELECT * FROM new",
    "MERGE": "MERGE INTO users USING (SELECT 'ada' AS it) AS x ON email = it"
             " WHEN NOT MATCHED THEN INSERT (email) VALUES (it)",
    "EXPLAIN ANALYZE": "EXPLAIN ANALYZE INSERT INTO users (email) VALUES ('ada')",
    "comment": "/* SELECT */ INSERT INTO users (email) VALUES ('ada')",
    "SELECT INTO": "SELECT 'ada' AS email INTO copied",
    "REFRESH": "REFRESH MATERIALIZED VIEW counted",
    "COMMENT": "COMMENT ON TABLE roles IS 'x'",
    "large object": "SELECT lo_create(0)",
}.items()}
"""
SCHEMA = """
CREATE FUNCTION add(it text) RETURNS int LANGUAGE sql
  AS 'INSERT INTO users (email) VALUES (it) RETURNING 1';
CREATE FUNCTION look() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users';
CREATE PROCEDURE enter(it text) LANGUAGE sql AS 'INSERT INTO users (email) VALUES (it)';
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM roles
"""
COUNT = """
COUNT = sa.select(sa.func.count()).select_from(User)
"""


@pytest.fixture(autouse=True)
def schema(project: Project) -> None:
    """Ways to write that no word of the statement tells; autouse because every run has them."""
    project.extend_schema(SCHEMA)


def test_a_session_that_has_only_read_is_never_refused(project: Project) -> None:
    write_on_both_paths(
        project,
        COUNT
        + READS
        + """
@pytest.mark.parametrize("number", range(len(READS)))
async def test_it(client, db, number):
    async with SessionLocal() as reader, SessionLocal() as writer:
        await reader.execute(sa.text(READS[number]))
        writer.add(User(email="ada"))
        await writer.commit()
        await reader.execute(sa.text(READS[number]))
        assert (await client.post("/users/grace")).status_code == 200
        await reader.rollback()
        await reader.execute(sa.text(READS[number]))
        writer.add(User(email="joan"))
        await writer.commit()
        await reader.commit()
    assert await emails(db) == ["ada", "grace", "joan"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=22)
    assert ran_again(result) == {}


def test_a_write_is_never_missed_when_another_session_speaks(project: Project) -> None:
    write_on_both_paths(
        project,
        COUNT
        + WRITES
        + """
@pytest.mark.parametrize("name", WRITES)
async def test_it(db, name):
    async with SessionLocal() as writer, SessionLocal() as other:
        if name in ("cursor", "copy"):  # which take no turn, being past SQLAlchemy
            assert await writer.scalar(COUNT) == 0
        await WRITES[name](writer)
        assert await other.scalar(COUNT) == 0
        await other.rollback()
        await writer.rollback()
    assert await emails(db) == []
""",
    )

    result = project.run()

    result.assert_outcomes(passed=40)
    assert how_many_ran_again(result) == 20
    assert counts(result)[0] == 40
    reasons = [line for line in result.outlines if line.startswith("  another session")]
    assert [reason.startswith(f"  {UNCOMMITTED}") for reason in reasons] == [True]


OUTLASTS = """
SEEN = "SELECT (SELECT count(*) FROM users) + (to_regclass('copied') IS NOT NULL)::int"

@pytest.mark.parametrize("name", WRITES)
async def test_it(db, name):
    async with SessionLocal() as writer, SessionLocal() as reader:
        await reader.scalar(COUNT)
        await WRITES[name](writer)
        await writer.commit()
        await reader.scalar(COUNT)
        await reader.rollback()
        seen = await reader.scalar(sa.text(SEEN))
        await reader.rollback()
        assert await writer.scalar(sa.text(SEEN)) == seen
    assert seen > 0 or name in ("REFRESH", "COMMENT", "large object")
"""


def test_what_was_committed_outlasts_the_rollback_of_a_reader(project: Project) -> None:
    write_on_both_paths(
        project,
        COUNT + WRITES + OUTLASTS,
    )

    result = project.run()

    result.assert_outcomes(passed=40)
    # What works past SQLAlchemy is noticed at the commit.
    assert set(ran_again(result)) <= {"test_it[savepoints-cursor]", "test_it[savepoints-copy]"}


def test_a_readers_commit_does_not_commit_what_another_has_written(project: Project) -> None:
    write_on_both_paths(
        project,
        COUNT
        + """
async def test_it(db):
    async with SessionLocal() as writer, SessionLocal() as reader:
        await reader.scalar(COUNT)
        writer.add(User(email="ada"))
        await writer.flush()
        await reader.commit()
        await writer.rollback()
    assert await emails(db) == []

async def test_nor_does_an_autocommit_of_nothing(db):
    async with SessionLocal() as writer, SessionLocal() as idle:
        writer.add(User(email="ada"))
        await writer.flush()
        await idle.commit()
        await idle.rollback()
        await writer.rollback()
    assert await emails(db) == []
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert all(reason.startswith(UNCOMMITTED) for reason in ran_again(result).values())
