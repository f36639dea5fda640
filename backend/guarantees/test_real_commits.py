"""Promise 4: what was really committed is deleted, and what is not verified clean cloned anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import make_url

from guarantees.looking import LOOK
from guarantees.project import Project
from guarantees.report import causes, counts
from guarantees.servers import Database

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
