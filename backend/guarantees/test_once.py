"""Promise 1: the schema is created once, not once a test, a worker or a run; the roles once."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable

import pytest
from sqlalchemy import make_url

from guarantees.factories import write_on_both_paths
from guarantees.project import Project
from guarantees.servers import Database

# Counts from inside, on every connection of the run: those that build the template included.
SPY = """
import json
from pathlib import Path

import sqlalchemy as sa

@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def note(connection, cursor, statement, *_):
    with Path("statements.txt").open("a") as file:
        file.write(json.dumps(statement) + chr(10))
"""
TESTS = """
from pathlib import Path

import pytest
from fastapi_conftest import schema_once

@pytest.mark.parametrize("time", range(4))
async def test_it(client, time):
    Path("template.txt").write_text((await schema_once()).name)
    assert (await client.post("/users/ada")).status_code == 200

@pytest.mark.fresh_database
async def test_fresh(client):
    assert (await client.post("/users/ada")).status_code == 200
"""
MODELS = "app/models.py"


class Run:
    """What a run of the tests above did to the schema."""

    def __init__(self, project: Project, database: Database, lines: list[str]) -> None:
        """Read what the run noted, and look at its template."""
        noted = (project.path / "statements.txt").read_text(encoding="utf-8").splitlines()
        self.statements = [" ".join(json.loads(line).split()) for line in noted]
        (self.state,) = [each for line in lines for each in re.findall(r"schema (\w+), ", line)]
        self.template = (project.path / "template.txt").read_text(encoding="utf-8")
        query = """
            SELECT oid::int, datistemplate, datallowconn, shobj_description(oid, 'pg_database')
            FROM pg_database WHERE datname = :name
        """
        (row,) = database.query(query, name=self.template)
        self.oid, self.is_template, self.allows_connections, comment = row
        self.mark, self.fingerprint, _when_last_used = comment.split()

    def count(self, start: str) -> int:
        """Return how many statements began like this."""
        return sum(each.startswith(start) for each in self.statements)


@pytest.fixture
def unbuilt(project: Project) -> Project:
    """A project whose schema no other test has, so that its first run must build it."""
    project.write("app/spy.py", SPY)
    project.replace("app/main.py", "from typing import", "import app.spy\nfrom typing import")
    unique = f'__table_args__ = {{"comment": "{secrets.token_hex(8)}"}}'
    project.replace(MODELS, '__tablename__ = "roles"', f'__tablename__ = "roles"\n    {unique}')
    project.write("tests/test_it.py", TESTS)
    return project


@pytest.fixture
def run(unbuilt: Project, database: Database) -> Callable[..., Run]:
    """A function that runs the project's tests, all of which must pass."""

    def run_tests(*arguments: str) -> Run:
        (unbuilt.path / "statements.txt").unlink(missing_ok=True)
        result = unbuilt.run(*arguments)
        result.assert_outcomes(passed=5)
        return Run(unbuilt, database, result.outlines)

    return run_tests


def test_the_first_run_creates_each_table_once_and_the_next_none(run: Callable[..., Run]) -> None:
    first, second, parallel = run(), run(), run("-n", "2")

    assert [each.state for each in (first, second, parallel)] == ["built", "cached", "cached"]
    assert (first.count("CREATE TABLE"), first.count("CREATE DATABASE")) == (2, 3)
    for later in second, parallel:
        assert later.oid == first.oid
        assert later.count("CREATE ") == later.count("CREATE DATABASE")
        assert later.count("ALTER TABLE") == later.count("COMMENT ON TABLE") == 0


def test_workers_share_one_schema_and_each_database_gets_its_roles_once(
    run: Callable[..., Run],
) -> None:
    parallel = run("-n", "2")

    assert parallel.state == "built"
    assert parallel.count("CREATE TABLE") == 2
    assert parallel.count("CREATE DATABASE") == 1 + 2 + 1  # template, workers, fresh_database
    assert parallel.count("INSERT INTO roles") == 2 + 1


def test_two_runs_that_start_together_build_one_schema(unbuilt: Project) -> None:
    models = (unbuilt.path / MODELS).read_text(encoding="utf-8")
    sleep = "DO $$ BEGIN PERFORM pg_sleep(1); END $$"
    slow = f"event.listen(Base.metadata, 'after_create', DDL('{sleep}'))"
    unbuilt.write(MODELS, f"{models}\nfrom sqlalchemy import DDL, event\n{slow}\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= unbuilt.environment

    runs = [
        subprocess.Popen(  # noqa: S603 - our own interpreter
            command, cwd=unbuilt.path, env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [each.communicate(timeout=60)[0] for each in runs]

    assert all("5 passed" in output for output in outputs)
    assert sorted(re.findall(r"schema (\w+), ", "".join(outputs))) == ["built", "cached"]
    noted = (unbuilt.path / "statements.txt").read_text(encoding="utf-8")
    assert noted.count("CREATE TABLE roles") == 1


def test_the_template_is_sealed_and_says_of_what_schema_it_is(
    run: Callable[..., Run], database: Database
) -> None:
    first = run()

    assert (first.is_template, first.allows_connections) == (True, False)
    assert first.mark == "fastapi_conftest"
    assert re.fullmatch(r"[0-9a-f]{16}", first.fingerprint)
    inside = make_url(database.url).set(database=first.template)
    with pytest.raises(Exception, match="not currently accepting connections"):
        Database(inside.render_as_string(hide_password=False)).query("SELECT 1")


@pytest.mark.parametrize("workers", [["-n", "2"], ["--tx", "2*popen", "--dist", "load"]])
def test_the_switch_builds_anew_once_for_all_workers_and_later_runs(
    run: Callable[..., Run], workers: list[str]
) -> None:
    first, forced, later = run(), run("--rebuild-schema", *workers), run()

    assert [each.state for each in (first, forced, later)] == ["built", "built", "cached"]
    assert forced.count("CREATE TABLE") == 2
    assert forced.fingerprint == first.fingerprint
    assert first.oid != forced.oid == later.oid


def test_each_change_of_the_schema_rebuilds_it_and_no_other_change_does(
    unbuilt: Project, run: Callable[..., Run]
) -> None:
    unbuilt.isolate(
        "create_schema=create_schema, schema_files=[Path('view.sql'), 'models.txt']",
        "def create_schema(connection):\n"
        "    Base.metadata.create_all(connection)\n"
        "    connection.exec_driver_sql(Path('view.sql').read_text())\n"
        "    connection.exec_driver_sql(EXTRA)\n"
        "EXTRA = 'CREATE SEQUENCE three'\n",
    )
    unbuilt.write("view.sql", "CREATE VIEW names AS SELECT name FROM roles")
    unbuilt.write("models.txt", "User, Role")
    parts = {
        "enum": "User.__table__.append_column(Column('mood', Enum('sad', 'glad', name='mood')))",
        "index": "Index('by_desk', User.desk)",
        "constraint": "User.__table__.append_constraint(CheckConstraint('desk > 0', name='real'))",
        "DDL event": "event.listen(Base.metadata, 'after_create', DDL('CREATE SEQUENCE one'))",
    }
    changes = {
        "enum": ("'glad'", "'glad', 'odd'"),
        "index": ("User.desk)", "User.desk, unique=True)"),
        "constraint": ("desk > 0", "desk > 1"),
        "DDL event": ("SEQUENCE one", "SEQUENCE two"),
    }
    models = (unbuilt.path / MODELS).read_text(encoding="utf-8")
    models += "\nfrom sqlalchemy import DDL, CheckConstraint, Column, Enum, Index, Table, event\n"
    models += "\n".join(parts.values())
    unbuilt.write(MODELS, models)
    oids = [run().oid]

    for name, change in changes.items():
        unbuilt.write(MODELS, models.replace(parts[name], parts[name].replace(*change)))
        oids.append(run().oid)
    models += "\nTable('extra', Base.metadata, Column('id', sa.Integer))\n"
    unbuilt.write(MODELS, f"import sqlalchemy as sa\n{models}")
    oids.append(run().oid)
    unbuilt.write("view.sql", "CREATE VIEW names AS SELECT name, id FROM roles")
    oids.append(run().oid)
    unbuilt.replace("tests/conftest.py", "SEQUENCE three", "SEQUENCE four")
    oids.append(run().oid)
    unbuilt.write(MODELS, f"import sqlalchemy as sa\n{models}\ndef unrelated(): pass\n")
    unbuilt.replace("app/roles.py", '"admin"', '"owner"')

    assert len(set(oids)) == 1 + len(changes) + 3
    assert run().oid == oids[-1]


@pytest.mark.parametrize(
    "call",
    [
        "connection.execute(sa.text('CREATE SEQUENCE {0}'))",
        "connection.exec_driver_sql('CREATE SEQUENCE {0}')",
        "connection.execute(Role.__table__.insert(), [dict(name='{0}')])",
    ],
    ids=["text", "driver_sql", "rows"],
)
def test_a_listener_that_is_a_function_is_part_of_the_schema(
    unbuilt: Project, run: Callable[..., Run], call: str
) -> None:
    models = (unbuilt.path / MODELS).read_text(encoding="utf-8")
    listener = (
        "import sqlalchemy as sa\n\n"
        "@sa.event.listens_for(Base.metadata, 'after_create')\n"
        f"def finish(target, connection, **_):\n    {call}\n"
    )

    unbuilt.write(MODELS, f"{models}\n{listener.format('one')}")
    first = run()
    unbuilt.write(MODELS, f"{models}\n{listener.format('two')}")
    second = run()

    assert (first.state, second.state) == ("built", "built")


def test_the_order_of_a_set_is_no_change_of_the_schema(
    unbuilt: Project, run: Callable[..., Run]
) -> None:
    models = (unbuilt.path / MODELS).read_text(encoding="utf-8")
    indexes = "\n".join(f"Index('by_{n}', User.desk, User.id)" for n in range(9))
    unbuilt.write(MODELS, f"{models}\nfrom sqlalchemy import Index\n{indexes}\n")

    states = []
    for seed in "1", "2", "3":
        unbuilt.environment["PYTHONHASHSEED"] = seed
        states.append(run().state)

    assert states == ["built", "cached", "cached"]


def test_a_seeding_may_begin_and_commit_by_itself(project: Project) -> None:
    options = "expire_on_commit=False"
    project.replace("app/db.py", options, f"{options}, autobegin=False")
    project.write(
        "app/roles.py",
        """
from app.models import Role

async def setup_roles(session):
    async with session.begin():
        session.add_all([Role(name="admin"), Role(name="member")])
""",
    )
    project.write(
        "tests/test_it.py",
        """
import sqlalchemy as sa

async def test_it(db):
    async with db.begin():
        assert await db.scalar(sa.text("SELECT count(*) FROM roles")) == 2
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)


def test_what_is_seeded_after_a_test_is_in_both_databases_from_then_on(project: Project) -> None:
    write_on_both_paths(
        project,
        """
import fastapi_conftest as fc
import pytest_asyncio

async def add_ada(session):
    session.add(User(email="ada"))

@pytest_asyncio.fixture(scope="module")
async def ada(engine):
    await fc.seed_once(engine, add_ada)

async def test_1_is_before(db):
    assert await emails(db) == []

async def test_2_has_asked_for_it(ada, db):
    assert await emails(db) == ["ada"]

async def test_3_is_after(db):
    assert await emails(db) == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=6)


def test_a_clock_that_stands_still_keeps_no_template_from_the_next_run(
    unbuilt: Project, run: Callable[..., Run]
) -> None:
    frozen = "import time\nnow, time.time = time.time, lambda: 1.0\n"
    source = unbuilt.read("tests/conftest.py")
    unbuilt.write("tests/conftest.py", f"{frozen}{source}")
    run()
    unbuilt.write("tests/conftest.py", source)

    second = run()

    assert second.state == "cached"


ASKS = {
    "a schema": "connection.dialect.has_schema(connection, 'other')",
    "a result": "connection.execute(sa.text('SELECT 1')).scalar()",
    "an inspector": "sa.inspect(connection).get_table_names()",
}


@pytest.mark.parametrize("call", ASKS.values(), ids=list(ASKS))
def test_a_listener_may_ask_the_server(
    unbuilt: Project, run: Callable[..., Run], call: str
) -> None:
    models = unbuilt.read(MODELS)
    listener = (
        "import sqlalchemy as sa\n\n"
        "User.__table__.append_column(sa.Column('mood', sa.Enum('sad', 'glad', name='mood')))\n"
        "comment = sa.DDL(\"COMMENT ON TABLE %(table)s IS 'x'\")\n"
        "sa.event.listen(User.__table__, 'after_create', comment)\n"
        "sa.event.listen(sa.Table, 'before_create', lambda *_, **__: ask(*_, **__))\n"
        "@sa.event.listens_for(Base.metadata, 'before_create')\n"
        f"def ask(target, connection, **_):\n    {call}\n"
    )
    unbuilt.write(MODELS, f"{models}\n{listener}")
    first, again = run(), run()
    unbuilt.write(MODELS, f"{models}\n{listener}    connection.exec_driver_sql('SELECT 2')\n")

    other = run()

    assert [first.state, again.state, other.state] == ["built", "cached", "built"]
