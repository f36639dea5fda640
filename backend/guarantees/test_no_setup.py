"""Promise 8: with nothing configured PostgreSQL starts by itself, and stops after the last run."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from guarantees.conftest import Project
from guarantees.test_crash import QUICK, WAITING, wait_for


@pytest.fixture
def cache(project: Project) -> Iterator[Path]:
    """A cache folder of the test's own, with a path short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="fc"))
    del project.environment["TEST_DATABASE_URL"]
    project.environment["XDG_CACHE_HOME"] = str(folder)
    yield folder
    shutil.rmtree(folder)


def runs(cache: Path) -> bool:
    """Tell whether the server of a cache folder runs."""
    return (cache / "fastapi_conftest" / "postgresql" / "postmaster.pid").exists()


def test_a_server_starts_for_all_workers_and_stops_after_the_last(
    project: Project, cache: Path
) -> None:
    project.write("tests/test_it.py", QUICK)

    result = project.run("-n", "2")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"database: PostgreSQL 18.* at {cache}/*, schema built, *"])
    assert not runs(cache)


def test_the_server_of_a_killed_run_stops_after_the_next(project: Project, cache: Path) -> None:
    project.write("tests/test_it.py", WAITING)
    killed = project.start()
    wait_for(project.path / "begun.txt")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert runs(cache)
    project.write("tests/test_it.py", QUICK)

    result = project.run()

    result.assert_outcomes(passed=1)
    assert not runs(cache)


def test_nobody_else_can_reach_the_server(project: Project, cache: Path) -> None:
    project.write(
        "tests/test_it.py",
        """
from pathlib import Path
import sqlalchemy as sa

async def test_it(db):
    assert await db.scalar(sa.text("SHOW listen_addresses")) == ""
    folder = Path(await db.scalar(sa.text("SHOW unix_socket_directories")))
    assert folder.stat().st_mode & 0o077 == 0
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)
