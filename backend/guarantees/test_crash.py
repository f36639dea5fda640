"""Promise 7: a killed run leaves nothing behind after the next, and no live run is harmed."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import time
from collections.abc import Iterator

import pytest
from fastapi_conftest.embedded import EmbeddedServer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from guarantees.processes import QUICK, WAITING, kill, wait_for
from guarantees.project import Project
from guarantees.report import LOST, causes, counts
from guarantees.servers import Database, own_server, url_of


def exists(database: Database, name: str) -> bool:
    """Tell whether a database is there."""
    return database.query("SELECT 1 FROM pg_database WHERE datname = :name", name=name) == [1]


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["serial", "parallel"])
def test_the_next_run_drops_what_a_killed_run_left(
    project: Project, database: Database, workers: list[str]
) -> None:
    project.write("tests/test_it.py", WAITING)
    killed = project.start(*workers)
    name = wait_for(project.path / "begun.txt")
    kill(killed)
    for _ in range(100):  # until the server has noticed
        if not database.query("SELECT 1 FROM pg_stat_activity WHERE datname = :name", name=name):
            break
        time.sleep(0.05)
    assert exists(database, name)
    project.write("tests/test_it.py", QUICK)

    result = project.run()

    result.assert_outcomes(passed=1)
    assert not exists(database, name)


def test_a_run_that_was_killed_while_it_built_the_template_is_cleaned_up_too(
    project: Project, database: Database
) -> None:
    project.isolate(
        "create_schema=create_schema",
        "def create_schema(connection):\n"
        f"    Base.metadata.create_all(connection)  # new in every run: {secrets.token_hex(8)}\n"
        "    Path('begun.txt').write_text(connection.engine.url.database)\n"
        "    connection.exec_driver_sql('SELECT pg_sleep(3)')\n",
    )
    project.write("tests/test_it.py", QUICK)
    killed = project.start()
    name = wait_for(project.path / "begun.txt")
    kill(killed)
    database.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :n", n=name
    )

    result = project.run()

    result.assert_outcomes(passed=1)
    assert not exists(database, name)


def test_another_runs_sweep_leaves_a_live_run_alone(project: Project, database: Database) -> None:
    project.write("tests/test_it.py", WAITING)
    live = project.start()
    name = wait_for(project.path / "begun.txt")
    project.write("tests/test_other.py", QUICK)

    other = project.run("tests/test_other.py")

    other.assert_outcomes(passed=1)
    assert exists(database, name)
    (project.path / "go_on.txt").touch()
    output, _ = live.communicate(timeout=60)
    assert re.search(r"1 passed", output)
    assert not exists(database, name)


def test_a_run_that_has_lost_its_lock_takes_it_again(project: Project, database: Database) -> None:
    project.write("tests/test_1.py", WAITING)
    second = WAITING.replace("begun", "begun_2").replace("go_on", "go_on_2")
    project.write("tests/test_2.py", second)
    project.write("quick/test_other.py", QUICK)
    shutil.copytree(project.path / "tests", project.path / "quick", dirs_exist_ok=True)
    for waiting in "test_1.py", "test_2.py":
        (project.path / "quick" / waiting).unlink()
    live = project.start("tests")
    name = wait_for(project.path / "begun.txt")
    key = int(name.split("_")[2])
    held = (
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 1000271 AND objid = :k"
    )
    (pid,) = database.query(held, k=key)
    database.query("SELECT pg_terminate_backend(:pid, 5000)", pid=pid)
    assert database.query(held, k=key) == []
    (project.path / "go_on.txt").touch()
    wait_for(project.path / "begun_2.txt")

    again = database.query(held, k=key)
    other = project.run("quick")

    assert len(again) == 1
    other.assert_outcomes(passed=1)
    assert exists(database, name)
    (project.path / "go_on_2.txt").touch()
    output, _ = live.communicate(timeout=60)
    assert re.search(r"2 passed", output), output
    assert not exists(database, name)


def make_left_over(database: Database, name: str, *, template_of: float | None = None) -> None:
    """Make a database as a run leaves it that was killed: marked, and nobody connected."""
    database.query(f"CREATE DATABASE {name} TEMPLATE template0 CONNECTION LIMIT 1000271")
    if template_of is not None:
        comment = f"fastapi_conftest 0123456789abcdef {template_of:.0f}"
        database.query(f"COMMENT ON DATABASE {name} IS '{comment}'")
        database.query(f"ALTER DATABASE {name} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false")


def run_beside(key: int, project: Project, database: Database) -> pytest.RunResult:
    """Run the project's tests while somebody holds our lock with this key: 0 is a builder's."""

    async def hold_and_run() -> pytest.RunResult:
        engine = create_async_engine(database.url)
        async with engine.connect() as connection:
            await connection.execute(text(f"SELECT pg_advisory_lock(1000271, {key})"))
            result = project.run()
        await engine.dispose()
        return result

    return asyncio.run(hold_and_run())


def test_the_sweep_goes_by_the_lock_and_by_a_templates_last_use(
    project: Project, database: Database
) -> None:
    project.write("tests/test_it.py", QUICK)
    dead, live = "fastapi_conftest_41_main", "fastapi_conftest_42_main"
    old, new = "fastapi_conftest_43_template", "fastapi_conftest_44_template"
    half = "fastapi_conftest_45_main"  # a kill has stopped its DROP DATABASE
    make_left_over(database, dead)
    make_left_over(database, live)
    make_left_over(database, old, template_of=time.time() - 90_000)
    make_left_over(database, new, template_of=time.time() - 80_000)
    make_left_over(database, half)
    database.query("UPDATE pg_database SET datconnlimit = -2 WHERE datname ~ '_45_main$'")

    result = run_beside(42, project, database)

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["database: * 3 left-over databases dropped*"])
    left = [exists(database, name) for name in (dead, live, old, new, half)]
    database.query(f"ALTER DATABASE {new} WITH IS_TEMPLATE false")
    database.query(f"DROP DATABASE {new}")
    database.query(f"DROP DATABASE IF EXISTS {live}")
    assert left == [False, True, False, True, False]


SAID = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = :name"


def template_used(project: Project, database: Database, seconds: float) -> str:
    """Return the template that a run has used, and say that this was some time ago."""
    project.write(
        "tests/test_it.py",
        "from pathlib import Path\n"
        "from fastapi_conftest import schema_once\n"
        "async def test_it(db):\n"
        "    Path('template.txt').write_text((await schema_once()).name)\n",
    )
    project.run().assert_outcomes(passed=1)
    name = (project.path / "template.txt").read_text(encoding="utf-8")
    (comment,) = database.query(SAID, name=name)
    schema, before = comment.rsplit(" ", 1)[0], time.time() - seconds
    database.query(f"COMMENT ON DATABASE {name} IS '{schema} {before:.0f}'")
    return name


def test_the_use_of_a_template_is_noted(project: Project, database: Database) -> None:
    name = template_used(project, database, 80_000)

    result = project.run()

    result.assert_outcomes(passed=1)
    assert (project.path / "template.txt").read_text(encoding="utf-8") == name
    (now,) = database.query(SAID, name=name)
    assert time.time() - int(now.rsplit(" ", 1)[1]) < 60


def test_a_template_that_another_run_may_drop_at_any_moment_is_not_taken(
    project: Project, database: Database
) -> None:
    name = template_used(project, database, 86_370)

    result = project.run()

    result.assert_outcomes(passed=1)
    assert (project.path / "template.txt").read_text(encoding="utf-8") != name


def test_a_run_that_finds_its_template_does_not_wait_for_one_that_builds(
    project: Project, database: Database
) -> None:
    name = template_used(project, database, 0)

    result = run_beside(0, project, database)

    result.assert_outcomes(passed=1)
    assert (project.path / "template.txt").read_text(encoding="utf-8") == name


@pytest.fixture
def small_server(project: Project) -> Iterator[EmbeddedServer]:
    """A server of the test's own, for few connections."""
    with own_server("-c max_connections=12") as server:
        project.environment["TEST_DATABASE_URL"] = url_of(server).render_as_string()
        yield server


def test_a_test_that_meets_a_restart_of_the_server_runs_again_and_no_other_notices(
    project: Project, small_server: EmbeddedServer
) -> None:
    project.write("tests/test_1.py", WAITING)
    project.write("tests/test_2.py", "async def test_the_next(db): pass\n" + QUICK)
    run = project.start()
    wait_for(project.path / "begun.txt")
    small_server.stop()
    small_server.start()
    (project.path / "go_on.txt").touch()

    output, _ = run.communicate(timeout=60)

    assert re.search(r"3 passed", output), output
    again = rf'^        # {LOST}.*\n        "tests/test_1.py::test_it",$'
    assert re.search(again, output, re.MULTILINE), output


@pytest.mark.usefixtures("each_driver")
def test_a_server_with_too_few_connections_is_named_as_the_cause(
    project: Project, small_server: EmbeddedServer
) -> None:
    project.write(
        "tests/test_it.py",
        "import pytest\n@pytest.mark.parametrize('n', range(200))\nasync def test_it(db, n): pass",
    )

    result = project.run("-n", "8")

    outcomes = result.parseoutcomes()
    assert outcomes["passed"] + outcomes["errors"] == 200
    assert "To fix it: lower -n, or raise max_connections of a server" in str(result.stdout)
    assert Database(url_of(small_server).render_as_string()).leftovers() == []


def test_a_clone_that_cannot_be_used_is_made_anew_and_the_cause_told(project: Project) -> None:
    project.write(
        "tests/test_1.py",
        """
import pytest_asyncio
from fastapi_conftest.steps import worker_of

END = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE datname = "

@pytest_asyncio.fixture(scope="module")
async def sessions_end_with_the_module(engine):
    yield
    worker = worker_of(engine)
    await worker.admin.run(f"{END}'{worker.rollback.name}'")

async def test_1(sessions_end_with_the_module, db): pass
""",
    )
    project.write("tests/test_2.py", QUICK)

    result = project.run()

    result.assert_outcomes(passed=2)
    assert counts(result) == (0, 1, 0)
    (cause,) = causes(result)
    assert "connection" in cause
