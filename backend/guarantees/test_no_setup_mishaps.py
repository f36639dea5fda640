"""Promise 8, when things go wrong: the next run heals it, or says in one message what to do."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi_conftest import embedded

from guarantees.processes import QUICK, WAITING, kill_a_run, runs, wait_for
from guarantees.project import Project

FILLS = """
import pytest
import sqlalchemy as sa

@pytest.mark.parametrize("n", range(3))
async def test_it(db, n):
    await db.execute(sa.text("CREATE TABLE large AS SELECT repeat(md5(i::text), 60) "
                             "FROM generate_series(1, 100000) AS i"))
"""


@pytest.fixture
def quick(project: Project, folder: Path) -> Path:
    """A project whose only test passes, and the folder of its server."""
    project.write("tests/test_it.py", QUICK)
    return folder


@pytest.fixture
def data(project: Project, quick: Path) -> Path:
    """What a run has left of its server: the data."""
    project.run().assert_outcomes(passed=1)
    return next(path for path in quick.iterdir() if path.is_dir())


def passes(project: Project, folder: Path) -> bool:
    """Tell whether the next run passes and leaves complete data and no server."""
    project.run().assert_outcomes(passed=1)
    if [*folder.glob("new-*")]:  # the initdb of a killed run was still at work
        project.run()
    assert [*folder.glob("new-*")] == []
    return not runs(folder)


@pytest.mark.parametrize("moment", ["lock", "*/PG_VERSION", "*/global/pg_control", "18.*/*.pid"])
@pytest.mark.parametrize("kill", [os.kill, os.killpg], ids=["alone", "with all it started"])
def test_a_first_start_that_is_killed_at_any_moment(
    project: Project, quick: Path, moment: str, kill: Callable[[int, int], None]
) -> None:
    killed = project.start()
    while not [*quick.glob(moment)]:
        time.sleep(0.001)
    kill(killed.pid, signal.SIGKILL)
    killed.communicate()

    assert passes(project, quick)


def test_first_starts_at_once(project: Project, quick: Path) -> None:
    runs_at_once = [project.start() for _ in range(3)]

    for run in runs_at_once:
        output, _ = run.communicate(timeout=60)
        assert "1 passed" in output, output
    assert not runs(quick)
    assert len([*quick.glob("*/base")]) == 1


@pytest.mark.parametrize("broken", ["PG_VERSION", "global", "pg_wal", "postgresql.conf"])
def test_data_that_is_incomplete_is_made_anew(project: Project, data: Path, broken: str) -> None:
    (shutil.rmtree if (data / broken).is_dir() else os.unlink)(data / broken)

    assert passes(project, data.parent)


def test_data_of_another_version_is_left_alone_for_a_day(project: Project, data: Path) -> None:
    old = data.rename(data.with_name("17.9.9"))
    users = old.with_name("17.9.9.users")
    users.touch()
    assert passes(project, data.parent)
    assert old.exists()
    os.utime(users, (0, 0))

    assert passes(project, data.parent)
    assert not old.exists()
    assert data.exists()


def test_an_old_server_that_cannot_be_stopped_is_left_alone(project: Project, folder: Path) -> None:
    kill_a_run(project)
    told = next(folder.glob("*/postmaster.pid"))
    data = told.parent.rename(folder / "17.9.9")
    (folder / "17.9.9.users").touch()
    os.utime(folder / "17.9.9.users", (0, 0))
    pid = (data / "postmaster.pid").rename(data / "hidden")
    project.write("tests/test_it.py", QUICK)

    result = project.run()

    os.kill(int(pid.read_text().split()[0]), signal.SIGKILL)
    result.assert_outcomes(passed=1)
    assert data.exists()


@pytest.mark.parametrize("alive", [True, False], ids=["reused", "gone"])
def test_the_number_of_a_dead_server_may_be_that_of_another_process(
    project: Project, data: Path, alive: bool
) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if not alive:
        other.kill()  # and nobody waits for it: what is left is a zombie
    (data / "postmaster.pid").write_text(f"{other.pid}\n{data}\n0\n5432\n.\n\n0 0\nready\n")

    assert passes(project, data.parent)

    assert (other.poll() is None) == alive
    other.kill()
    other.wait()


def test_a_live_run_is_not_harmed_where_its_server_was_killed(
    project: Project, folder: Path
) -> None:
    project.write("tests/test_1.py", WAITING)
    project.write("tests/test_2.py", QUICK)
    live = project.start("tests/test_1.py")
    wait_for(project.path / "begun.txt")
    pid = int(next(folder.glob("*/postmaster.pid")).read_text().split()[0])
    os.kill(pid, signal.SIGKILL)

    project.run("tests/test_2.py").assert_outcomes(passed=1)

    (project.path / "go_on.txt").touch()
    output, _ = live.communicate(timeout=60)
    assert "1 passed" in output, output
    assert "1 tests ran again" in output  # it has lost its connection, and ran again
    assert not runs(folder)


def test_data_that_a_live_run_uses_is_never_removed(project: Project, folder: Path) -> None:
    project.write("tests/test_1.py", WAITING)
    project.write("tests/test_2.py", QUICK)
    live = project.start("tests/test_1.py")
    wait_for(project.path / "begun.txt")
    pid = next(folder.glob("*/postmaster.pid"))
    os.kill(int(pid.read_text().split()[0]), signal.SIGKILL)
    pid.with_name("PG_VERSION").unlink()

    result = project.run("tests/test_2.py")

    assert "PostgreSQL cannot start: another run uses " in str(result.stderr)
    assert pid.exists()
    (project.path / "go_on.txt").touch()
    live.communicate(timeout=60)
    project.run("tests/test_2.py").assert_outcomes(passed=1)


def test_a_link_that_somebody_has_planted_is_refused(project: Project, quick: Path) -> None:
    elsewhere = project.path / "elsewhere"
    elsewhere.mkdir()
    quick.symlink_to(elsewhere)

    result = project.run()

    output = f"{result.stdout}{result.stderr}"
    assert f"{quick} is not a folder that only you can change: delete it" in output
    assert "Traceback" not in output
    assert [*elsewhere.iterdir()] == []


def test_a_link_in_memory_is_not_used(project: Project, quick: Path) -> None:
    memory, elsewhere = project.path / "memory", project.path / "elsewhere"
    memory.mkdir()
    elsewhere.mkdir()
    (memory / quick.name).symlink_to(elsewhere)
    del project.environment["TEST_DATABASE_FOLDER"]
    project.in_folder("embedded", '"/dev/shm"', f'"{memory}"')
    project.in_folder("embedded", "ROOM = (", f"DISK = '{quick.parent}'\nROOM = (")

    assert passes(project, quick)
    assert [*elsewhere.iterdir()] == []


@pytest.fixture
def small(folder: Path) -> Iterator[Path]:
    """A folder with 64 MiB of memory, as a container has them."""
    if os.system(  # noqa: S605 - nothing comes from outside
        f"mount -t tmpfs -o size=64m,mode=711 tmpfs {folder.parent} 2>/dev/null"
    ):
        pytest.skip("only root may mount")
    yield folder
    os.system(f"umount --lazy {folder.parent}")  # noqa: S605 - see above


def test_memory_that_fills_is_named_and_the_next_run_works(project: Project, small: Path) -> None:
    project.write("tests/test_it.py", FILLS)

    result = project.run()

    output = f"{result.stdout}{result.stderr}"
    assert f"PostgreSQL has no room left for its data in {small}" in output
    assert "To fix it: export TEST_DATABASE_FOLDER=" in output
    assert re.search(r"Traceback|INTERNALERROR|DiskFull|above exception", output) is None
    project.write("tests/test_it.py", QUICK)
    assert passes(project, small)


def test_no_room_for_a_first_start_is_named(project: Project, small: Path) -> None:
    (small.parent / "other").write_bytes(bytes(50 * 2**20))
    project.write("tests/test_it.py", QUICK)

    result = project.run()

    output = f"{result.stdout}{result.stderr}"
    assert "No space left on device" in output
    assert "To fix it: export TEST_DATABASE_FOLDER=" in output
    assert "Traceback" not in output
    (small.parent / "other").unlink()
    assert passes(project, small)


def test_a_folder_whose_path_is_too_long_for_a_socket_is_told(
    project: Project, folder: Path
) -> None:
    long = folder.parent / "a-workspace-of-a-build-server" / "with-a-path-that-is-long" / ("x" * 40)
    project.environment["TEST_DATABASE_FOLDER"] = str(long)
    project.write("tests/test_it.py", QUICK)

    result = project.run()

    output = f"{result.stdout}{result.stderr}"
    assert "PostgreSQL cannot start: the path of its socket would be too long, in " in output
    assert "To fix it: export TEST_DATABASE_FOLDER=" in output
    assert not runs(long)


def test_a_run_that_holds_the_lock_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "OTHERS_PATIENCE", 0.1)

    with embedded.lock(tmp_path / "lock"), pytest.raises(BlockingIOError, match="another run uses"):
        embedded.lock(tmp_path / "lock", wait=True)
