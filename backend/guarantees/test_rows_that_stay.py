"""Promise 4: rows of the seeding, and of other servers, stay as they are."""

import asyncio

from sqlalchemy import make_url

from benchmark.server import create_database, drop_database
from guarantees.project import Project
from guarantees.report import causes
from guarantees.servers import Database


def test_setup_roles_need_not_commit(project: Project) -> None:
    project.replace("app/roles.py", "    await session.commit()\n", "")
    project.write(
        "tests/test_it.py",
        """
import pytest
import sqlalchemy as sa

REAL = pytest.param("real", marks=pytest.mark.fresh_database)

@pytest.mark.parametrize("path", ["savepoints", REAL])
async def test_it(db, path):
    assert await db.scalar(sa.text("SELECT count(*) FROM roles")) == 2
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_seeded_rows_are_as_seeded_however_many_there_are(project: Project) -> None:
    project.extend_schema("CREATE TABLE places (id serial PRIMARY KEY, name text UNIQUE)")
    project.replace(
        "app/roles.py",
        "    await session.commit()",
        '    await session.execute(text("INSERT INTO places (name) "\n'
        "        \"SELECT 'place ' || n FROM generate_series(1, 100000) AS n\"))\n"
        "    await session.commit()",
    )
    project.replace(
        "app/roles.py", "from app.models", "from sqlalchemy import text\nfrom app.models"
    )
    project.write(
        "tests/test_it.py",
        """
import pytest
import sqlalchemy as sa

pytestmark = pytest.mark.fresh_database

async def look(db):
    query = "SELECT count(*), max(id), bool_and(name = 'place ' || id) FROM places"
    assert tuple((await db.execute(sa.text(query))).one()) == (100000, 100000, True)

CHANGES = [
    "INSERT INTO places (name) VALUES ('elsewhere')",
    "UPDATE places SET name = name || '!' WHERE id = 500",
    "DELETE FROM places WHERE id = 100000",
    "DELETE FROM places WHERE id = 1; INSERT INTO places (name) VALUES ('place 1')",
]

@pytest.mark.parametrize("change", [*CHANGES, "SELECT 1"])
async def test_it(db, change):
    await look(db)
    for statement in change.split(";"):
        await db.execute(sa.text(statement))
    await db.commit()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=5)
    assert causes(result) == {"seeded row changed: public.places": 3}


def test_seeded_tables_that_no_test_changes_are_not_read(project: Project) -> None:
    project.write(
        "tests/test_it.py",
        """
import pytest
import sqlalchemy as sa

pytestmark = pytest.mark.fresh_database
SCANS = []

@pytest.mark.parametrize("number", range(5))
async def test_it(db, number):
    SCANS.append(await db.scalar(sa.text("SELECT pg_stat_get_numscans('roles'::regclass)")))
    await db.execute(sa.text("INSERT INTO users (email) VALUES ('a')"))
    await db.commit()

async def test_only_the_first_clean_has_read_it(db):
    assert len(set(SCANS[2:])) == 1, SCANS  # the server counts a scan some statements later
""",
    )

    result = project.run()

    result.assert_outcomes(passed=6)


def test_rows_behind_a_foreign_table_are_not_touched(project: Project) -> None:
    # A wrapper without a handler: whoever reads or writes these tables meets an error.
    project.extend_schema(
        """
CREATE FOREIGN DATA WRAPPER nobody;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nobody;
CREATE FOREIGN TABLE far (id int) SERVER nowhere;
CREATE TABLE whole (id int) PARTITION BY LIST (id);
CREATE TABLE near PARTITION OF whole FOR VALUES IN (1);
CREATE FOREIGN TABLE distant PARTITION OF whole FOR VALUES IN (2) SERVER nowhere
""",
    )
    project.write(
        "tests/test_it.py",
        """
import pytest
import sqlalchemy as sa

@pytest.mark.fresh_database
@pytest.mark.parametrize("time", range(2))
async def test_it(db, time):
    assert (await db.scalars(sa.text("SELECT id FROM near"))).all() == []
    await db.execute(sa.text("INSERT INTO whole VALUES (1)"))
    await db.commit()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert causes(result) == {"a foreign table, whose rows are not ours to delete": 2}


def test_rows_on_another_server_survive(project: Project, database: Database) -> None:
    far = asyncio.run(create_database(make_url(database.url), "far_away"))
    at_far = Database(far.render_as_string(hide_password=False))
    at_far.query("CREATE TABLE precious AS SELECT 42 AS answer")
    options = (
        f"dbname 'far_away', host '{far.host or far.query['host']}', port '{far.port or 5432}'"
    )
    project.extend_schema(
        f"""
CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({options});
CREATE USER MAPPING FOR CURRENT_USER SERVER far
  OPTIONS (user '{far.username}', password '{far.password}');
CREATE FOREIGN TABLE precious (answer int) SERVER far
""",
    )
    project.write(
        "tests/test_it.py",
        """
import pytest
import sqlalchemy as sa

@pytest.mark.fresh_database
@pytest.mark.parametrize("time", range(2))
async def test_it(db, time):
    assert (await db.scalars(sa.text("SELECT answer FROM precious"))).all() == [42]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert at_far.query("SELECT answer FROM precious") == [42]
    asyncio.run(drop_database(make_url(database.url), "far_away"))


TALLY = """
CREATE TABLE counted (id int);
CREATE TABLE tally (n int);
INSERT INTO tally VALUES (0);
CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
  UPDATE tally SET n = n + 1; RETURN NULL; END';
CREATE TRIGGER tally AFTER DELETE ON counted FOR EACH ROW EXECUTE FUNCTION tally()
"""


def test_what_the_cleaning_does_to_seeded_rows_by_a_trigger_is_noticed(project: Project) -> None:
    project.extend_schema(TALLY)
    project.write(
        "tests/test_it.py",
        """
import pytest
import sqlalchemy as sa

pytestmark = pytest.mark.fresh_database

async def test_1_looks(db): await db.execute(sa.text("SELECT 1"))

async def test_2_adds_what_will_be_deleted(db):
    await db.execute(sa.text("INSERT INTO counted VALUES (1)"))
    await db.commit()

async def test_3_finds_the_tally_as_seeded(db):
    assert await db.scalar(sa.text("SELECT n FROM tally")) == 0
""",
    )

    result = project.run()

    result.assert_outcomes(passed=3)
    assert causes(result) == {"seeded row changed: public.tally": 1}


def test_a_transaction_left_open_on_a_connection_that_was_given_back_is_gone(
    project: Project,
) -> None:
    project.write(
        "tests/test_it.py",
        """
import pytest
import sqlalchemy as sa

pytestmark = pytest.mark.fresh_database

async def test_1_leaves_it(engine):
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql("BEGIN")
        await connection.exec_driver_sql("INSERT INTO users (email) VALUES ('ada')")

async def test_2_finds_nothing_of_it(engine, db_transaction):
    async with engine.connect() as other:
        for connection in db_transaction, other:
            assert await connection.scalar(sa.text("SELECT count(*) FROM users")) == 0
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
