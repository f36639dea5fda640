"""Promise 4: what was really committed is deleted, and what is not verified clean cloned anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from sqlalchemy import make_url

from guarantees.project import Project
from guarantees.report import causes, counts
from guarantees.servers import Database, own_server, url_of

# What can keep a row from being deleted, or hide it, or write another one elsewhere.
SCHEMA = """
CREATE TABLE hens (id serial PRIMARY KEY, egg int);
CREATE TABLE eggs (id serial PRIMARY KEY, hen int REFERENCES hens);
ALTER TABLE hens ADD FOREIGN KEY (egg) REFERENCES eggs DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE ruled (id int);
CREATE RULE keep AS ON DELETE TO ruled DO INSTEAD NOTHING;
CREATE TABLE kept (id int);
CREATE INDEX by_id ON kept (id);
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''kept''; END';
CREATE TRIGGER keep BEFORE DELETE ON kept FOR EACH ROW EXECUTE FUNCTION keep();
CREATE TABLE softly (id int, gone bool);
CREATE FUNCTION softly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
  UPDATE softly SET gone = true WHERE id = OLD.id; RETURN NULL; END';
CREATE TRIGGER softly BEFORE DELETE ON softly FOR EACH ROW EXECUTE FUNCTION softly();
CREATE TABLE audited (id int);
CREATE TABLE audit (at text);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
  INSERT INTO audit VALUES (TG_OP); RETURN NULL; END';
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON audited
  FOR EACH ROW EXECUTE FUNCTION audit();
CREATE TABLE parts (id int, at int) PARTITION BY RANGE (at);
CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE part_2 PARTITION OF parts DEFAULT;
CREATE TABLE parent (id int);
CREATE TABLE child () INHERITS (parent);
CREATE SCHEMA "Other's";
CREATE TABLE "Other's"."Odd ""name"" too" (id int GENERATED ALWAYS AS IDENTITY, "Mixed" int);
CREATE SEQUENCE cached CACHE 20;
CREATE SEQUENCE untouched START 7;
CREATE MATERIALIZED VIEW view AS SELECT count(*) AS n FROM audited;
CREATE UNLOGGED TABLE unlogged (id int);
CREATE TABLE generated (id int, twice int GENERATED ALWAYS AS (id * 2) STORED)
"""
# What deleting the new rows makes good ...
ROWS = {
    "circular keys": "WITH h AS (INSERT INTO hens VALUES (1, 1)) INSERT INTO eggs VALUES (1, 1)",
    "triggers that write elsewhere": "INSERT INTO audited VALUES (1), (2)",
    "partitions": "INSERT INTO parts VALUES (1, 1), (2, 99)",
    "an inherited table": "INSERT INTO child VALUES (1); INSERT INTO parent VALUES (2)",
    "odd names": """INSERT INTO "Other's"."Odd ""name"" too" ("Mixed") VALUES (1), (2)""",
    "a cached sequence": "SELECT nextval('cached'), nextval('cached')",
    "a sequence set": "SELECT setval('untouched', 99, false)",
    "an unlogged and a generated table": "INSERT INTO unlogged VALUES (1);"
    "INSERT INTO generated VALUES (1)",
    "a seeded table": "INSERT INTO roles (name) VALUES ('guest')",
    "a holdable cursor": "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
    "settings": "SET work_mem = '1MB'; SET search_path = pg_catalog; LISTEN news",
    "a prepared statement": "PREPARE mine AS SELECT 1",
    "an advisory lock": "SELECT pg_advisory_lock(77)",
    "a role": "SET ROLE pg_monitor",
}
# ... and what only a clone does.
CLONES = {
    "a rule": "INSERT INTO ruled VALUES (1)",
    "a trigger that refuses": "INSERT INTO kept VALUES (1)",
    "a trigger that deletes softly": "INSERT INTO softly VALUES (1)",
    "a seeded row updated": "UPDATE roles SET name = 'guest' WHERE name = 'member'",
    "a seeded row deleted": "DELETE FROM roles WHERE name = 'member'",
    "a seeded row deleted, one added": "DELETE FROM roles WHERE id = 1;"
    "INSERT INTO roles (id, name) VALUES (1, 'admin')",
    "a temporary table": "CREATE TEMP TABLE mine (id int)",
    "a large object": "SELECT lo_create(4711)",
    "a materialized view": "REFRESH MATERIALIZED VIEW view",
    "TRUNCATE": "TRUNCATE hens, eggs",
    "TRUNCATE that restarts": "TRUNCATE roles RESTART IDENTITY CASCADE",
    "a table": "CREATE TABLE extra ()",
    "a table dropped": "DROP TABLE users CASCADE",
    "a column": "ALTER TABLE users ADD COLUMN shoe int",
    "a column dropped": "ALTER TABLE users DROP COLUMN desk",
    "a default": "ALTER TABLE users ALTER COLUMN desk SET DEFAULT 3",
    "NOT NULL": "ALTER TABLE users ALTER COLUMN desk SET NOT NULL",
    "a type": "CREATE TYPE mood AS ENUM ('sad')",
    "a domain": "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
    "a function": "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "a function changed": "CREATE OR REPLACE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN RETURN NULL; END'",
    "a trigger dropped": "DROP TRIGGER audit ON audited",
    "a trigger disabled": "ALTER TABLE audited DISABLE TRIGGER audit",
    "a rule dropped": "DROP RULE keep ON ruled",
    "an index": "CREATE INDEX extra ON users (desk)",
    "a policy": "CREATE POLICY see ON users USING (true)",
    "an index dropped": "DROP INDEX by_id",
    "a view": "CREATE VIEW extra AS SELECT 1",
    "a sequence": "CREATE SEQUENCE extra",
    "a sequence changed": "ALTER SEQUENCE untouched INCREMENT 5",
    "a schema": "CREATE SCHEMA extra",
    "a grant": "GRANT SELECT ON users TO PUBLIC",
    "default privileges": "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    "a comment": "COMMENT ON TABLE users IS 'extra'",
    "statistics": "CREATE STATISTICS extra ON desk, email FROM users",
    "a name": "ALTER TABLE hens RENAME TO chicken",
    "a partition": "ALTER TABLE parts DETACH PARTITION part_1",
    "a cast": "CREATE CAST (int AS users) WITH INOUT",
    "an operator": "CREATE OPERATOR @#@ (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl)",
    "a setting of the database": "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 99',"
    " current_database()); END $$",
    "DDL in a function": "DO $$ BEGIN EXECUTE 'CREATE TABLE extra ()'; END $$",
    "DDL behind a comment": "/* harmless */ CREATE TABLE extra ()",
}
# Everything that a test can find in its database: rows, sequences, the catalogue, the session.
LOOK = '''
import asyncio
import os

import pytest
import sqlalchemy as sa

from app.db import SessionLocal
from app.main import Db, app
from app.models import Role, User

pytestmark = pytest.mark.fresh_database

CATALOGUE = """
    SELECT 'class', (relname, relkind, relacl, relrowsecurity, relforcerowsecurity, relispartition,
      reltriggers)::text FROM (SELECT *, relhastriggers AS reltriggers FROM pg_class) AS c
      WHERE relname !~ '^pg_(temp|toast)' UNION ALL
    SELECT 'column', (attrelid::regclass, attname, atttypid, attnotnull, atthasdef,
      attisdropped)::text FROM pg_attribute WHERE attrelid >= 16384 UNION ALL
    SELECT 'function', (oid::regprocedure, prosrc)::text FROM pg_proc WHERE oid >= 16384 UNION ALL
    SELECT 'type', typname FROM pg_type WHERE oid >= 16384 AND typname !~ 'pg_temp' UNION ALL
    SELECT 'constraint', (conname, condeferrable, condeferred)::text FROM pg_constraint UNION ALL
    SELECT 'trigger', (tgname, tgenabled)::text FROM pg_trigger UNION ALL
    SELECT 'policy', polname FROM pg_policy UNION ALL
    SELECT 'rule', rulename FROM pg_rewrite WHERE oid >= 16384 UNION ALL
    SELECT 'default', pg_get_expr(adbin, adrelid) FROM pg_attrdef UNION ALL
    SELECT 'schema', (nspname, nspacl)::text FROM pg_namespace WHERE nspname !~ '^pg_' UNION ALL
    SELECT 'privilege', defaclacl::text FROM pg_default_acl UNION ALL
    SELECT 'comment', description FROM pg_description WHERE objoid >= 16384 UNION ALL
    SELECT 'statistics', stxname FROM pg_statistic_ext UNION ALL
    SELECT 'cast', castsource::text FROM pg_cast WHERE oid >= 16384 UNION ALL
    SELECT 'operator', oprname FROM pg_operator WHERE oid >= 16384 UNION ALL
    SELECT 'large object', oid::text FROM pg_largeobject_metadata UNION ALL
    SELECT 'setting', array_to_string(setconfig, ',') FROM pg_db_role_setting AS s
      JOIN pg_database AS d ON d.oid = setdatabase WHERE datname = current_database() UNION ALL
    SELECT 'sequence', (seqrelid::regclass, seqincrement)::text FROM pg_sequence UNION ALL
    SELECT 'two-phase', gid FROM pg_prepared_xacts WHERE database = current_database() UNION ALL
    SELECT 'prepared', name FROM pg_prepared_statements WHERE from_sql UNION ALL
    SELECT 'cursor', name FROM pg_cursors WHERE is_holdable UNION ALL
    SELECT 'channel', pg_listening_channels() UNION ALL
    SELECT 'lock', objid::text FROM pg_locks WHERE locktype = 'advisory' AND classid = 0
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) UNION ALL
    SELECT 'who', (current_user = session_user)::text UNION ALL
    SELECT 'path', current_setting('search_path') UNION ALL
    SELECT 'memory', current_setting('work_mem')
"""
TABLES = sa.text("SELECT oid::regclass::text, relkind FROM pg_class"
                 " WHERE relkind IN ('r', 'm', 'S')"
                 " AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'")

async def everything(db):
    found = {str(tuple(row)) for row in await db.execute(sa.text(CATALOGUE))}
    for name, kind in (await db.execute(TABLES)).all():
        columns = "last_value, is_called" if kind == b"S" else "t"
        rows = await db.execute(sa.text(f"SELECT ({columns})::text FROM ONLY {name} AS t"
                                        if kind != b"m" else f"SELECT t::text FROM {name} AS t"))
        found |= {f"{name} {row[0]}" for row in rows}
    return found

async def test_0_notes_what_there_is(db):
    global clean
    clean = await everything(db)
    assert len(clean) > 100

async def attack(db, script):
    whole = "$$" in script or "'BEGIN" in script
    for statement in [script] if whole else script.split(";"):
        await db.execute(sa.text(statement.replace(":", "\\\\:")))
    await db.commit()

async def look(db):
    async with SessionLocal() as second, SessionLocal() as third:
        for each in db, second, third:  # as many connections as a test has had
            assert await everything(each) == clean
    await db.rollback()
    db.add(user := User(email="ada", desk=1))
    await db.commit()
    assert user.id == 1
    if await db.scalar(sa.text("SELECT to_regclass('cached') IS NOT NULL")):
        assert await db.scalar(sa.text("SELECT nextval('cached')")) == 1
'''
PAIR = """
async def test_{0}_attack(db): await attack(db, {1!r})

async def test_{0}_look(db): await look(db)
"""


def write_attacks(project: Project, attacks: list[str]) -> None:
    """Write the attacks, each with a test that looks for its traces."""
    pairs = (PAIR.format(number, script) for number, script in enumerate(attacks, 1))
    project.write("tests/test_it.py", LOOK + "".join(pairs))


def failed(result: pytest.RunResult, attacks: dict[str, str]) -> list[str]:
    """Return the names of the inner tests that failed, with what they had tried."""
    names = [
        line.split("::")[1] for line in result.outlines if line.startswith(("FAILED", "ERROR"))
    ]
    return [f"{name} ({list(attacks)[int(name.split('_')[1]) - 1]})" for name in names]


@pytest.fixture
def modest_role(project: Project, database: Database) -> Iterator[None]:
    """Have the project's role be one that may create databases, and nothing else."""
    for statement in (
        "DROP ROLE IF EXISTS modest",
        "CREATE ROLE modest LOGIN CREATEDB PASSWORD 'modest'",
        "GRANT pg_monitor TO modest",
    ):
        database.query(statement)
    url = make_url(database.url).set(username="modest", password="modest")  # noqa: S106 - of this test
    project.environment["TEST_DATABASE_URL"] = url.render_as_string(hide_password=False)
    yield
    for name in database.query("SELECT datname FROM pg_database WHERE datdba = 'modest'::regrole"):
        database.query(f"ALTER DATABASE {name} WITH IS_TEMPLATE false")
        database.query(f"DROP DATABASE {name}")
    database.query("DROP ROLE modest")


@pytest.fixture
def obstacles(project: Project, modest_role: None) -> Project:
    """A project whose schema has all that can keep a row from being deleted."""
    project.extend_schema(SCHEMA)
    return project


def test_rows_are_deleted_whatever_the_schema_has_for_them(obstacles: Project) -> None:
    write_attacks(obstacles, list(ROWS.values()))

    result = obstacles.run()

    assert failed(result, ROWS) == []
    result.assert_outcomes(passed=1 + 2 * len(ROWS))
    assert counts(result) == (1 + 2 * len(ROWS), 0, 0)


def test_what_cannot_be_deleted_is_cloned_anew_and_the_cause_counted(obstacles: Project) -> None:
    write_attacks(obstacles, list(CLONES.values()))

    result = obstacles.run()

    assert failed(result, CLONES) == []
    result.assert_outcomes(passed=1 + 2 * len(CLONES))
    assert counts(result) == (1 + 2 * len(CLONES), len(CLONES), 0)
    counted = causes(result)
    seeded = counted["seeded row changed: public.roles"]
    ddl = sum(number for cause, number in counted.items() if cause.startswith("DDL or TRUNCATE"))
    assert seeded >= 3
    assert seeded + ddl == len(CLONES) - len(("a rule", "one that refuses", "one that is soft"))
    assert counted["kept"] == 1, "the error of the DELETE"
    assert sum(counted.values()) == len(CLONES)


HIDDEN = """
async def test_1_adds_rows(db): await attack(db, "INSERT INTO secured VALUES (1), (2)")

@pytest.mark.parametrize("time", range(5))
async def test_2_finds_none(db, time):
    await look(db)
    assert (await db.scalars(sa.text("SELECT id FROM secured"))).all() == []
"""


def test_rows_that_row_level_security_hides_are_gone_too(
    project: Project, modest_role: None
) -> None:
    project.extend_schema(
        """
CREATE TABLE secured (id int);
ALTER TABLE secured ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY see ON secured FOR SELECT USING (true);
CREATE POLICY add ON secured FOR INSERT WITH CHECK (true)
""",
    )
    project.write(
        "tests/test_it.py",
        LOOK + HIDDEN,
    )

    result = project.run()

    result.assert_outcomes(passed=7)
    assert counts(result)[1] == 1


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
