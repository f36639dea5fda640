"""Promise 7: a killed run leaves nothing behind after the next, and no live run is harmed."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guarantees.conftest import Database, Project, own_server
from tests.conftest import EmbeddedServer

# Says that it has begun, and goes on only when the other run is over.
WAITING = """
import asyncio
from pathlib import Path
import sqlalchemy as sa

async def test_it(client, db):
    name = await db.scalar(sa.text("SELECT current_database()"))
    Path("begun.txt").write_text(name)
    for _ in range(600):
        if Path("go_on.txt").exists():
            break
        await asyncio.sleep(0.05)
    assert (await client.post("/users/ada")).status_code == 200
"""
QUICK = "async def test_it(client): assert (await client.get('/users/count')).json() == 0"


def wait_for(path: Path) -> str:
    """Return what a file says, once it says something."""
    for _ in range(600):
        if path.exists() and (said := path.read_text()):
            return said
        time.sleep(0.05)
    raise TimeoutError(path)


def exists(database: Database, name: str) -> bool:
    """Tell whether a database is there."""
    return database.query("SELECT 1 FROM pg_database WHERE datname = :name", name=name) == [1]


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a run with all its workers, as a power cut would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


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
    project.replace(  # by as many lines, for `make coverage`
        "tests/conftest.py",
        "    METADATA.create_all(connection)\n\n\n",
        f"    METADATA.create_all(connection)  # new in every run: {secrets.token_hex(8)}\n"
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


@pytest.fixture
def small_server(project: Project) -> Iterator[EmbeddedServer]:
    """A server of the test's own, for few connections."""
    with own_server("-c max_connections=12") as server:
        project.environment["TEST_DATABASE_URL"] = str(server.url)
        yield server


def test_a_restart_of_the_server_costs_the_tests_that_meet_it(
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

    assert re.search(r"1 failed, 2 passed", output), output


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
    assert str(result.stdout).count("To mend it: lower -n, or raise max_connections") >= 1
    assert Database(str(small_server.url)).leftovers() == []
