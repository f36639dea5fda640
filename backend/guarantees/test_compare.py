"""The comparison on other people's projects: two trees of theirs, each run by its own pytest."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmark.example import FOLDER, copy_ours
from guarantees.project import HERE, Project
from guarantees.repository import SUITE, Repository

GOOD = """test_is_expected_to_fail(): pass

@pytest.mark.xfail(strict=True)
def test_strictly(): pass"""


def test_two_revisions_get_a_table_and_every_difference_is_named(
    repository: Repository, tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    result = repository.compare("--before", "before", "--after", "after", "--json", str(file))

    assert result.returncode == 1, result.stdout + result.stderr
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert "5 tests, those that passed on both sides" in result.stdout
    assert figures["tests"] == 5
    assert [each["passed"] for each in figures["strategies"].values()] == [7, 6]
    _, _, differences = result.stdout.partition("before and after differ")
    assert differences.partition("\n\n")[0].splitlines()[2:] == [
        "WORSE, 1 test: passed before, not there after",
        "  tests/test_differs.py::test_goes",
        "WORSE, 1 test: passed before, failed after",
        "  tests/test_differs.py::test_becomes: RuntimeError: the new conftest refuses,",
        "  and says what to type",
        "1 test: not there before, passed after",
        "  tests/test_differs.py::test_comes",
    ]
    assert [each["worse"] for each in figures["differences"]] == [True, True, False]


def test_what_is_not_worse_is_named_and_no_error(repository: Repository) -> None:
    better = SUITE["tests/test_it.py"].replace("test_is_expected_to_fail(): assert False", GOOD)
    better = better.replace('assert False, "as it always did"', "pass")
    repository.write({"tests/test_it.py": better})

    result = repository.compare()

    assert result.returncode == 0, result.stdout + result.stderr
    _, _, differences = result.stdout.partition("before and after differ")
    assert differences.partition("\n\n")[0].splitlines()[2:] == [
        "1 test: xfailed before, xpassed after",
        "  tests/test_it.py::test_is_expected_to_fail",
        "1 test: failed before, passed after",
        "  tests/test_it.py::test_fails_always: AssertionError: as it always did",
        "  assert False",
        "1 test: not there before, xpassed after",
        "  tests/test_it.py::test_strictly: [XPASS(strict)] ",
    ]


def test_what_is_the_same_on_both_sides_stops_nothing(repository: Repository) -> None:
    repository.write({"tests/test_it.py": f"{SUITE['tests/test_it.py']}\n"})

    result = repository.compare("--before", "after")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "6 tests, those that passed on both sides" in result.stdout
    assert "differ" not in result.stdout
    assert f"after: {repository.path}\n" in result.stdout


def test_a_change_that_is_committed_already_is_told_with_what_to_type(
    repository: Repository,
) -> None:
    repository.commit({"tests/fastapi_conftest/__init__.py": ""}, "adopted")
    repository.commit({"tests/test_later.py": "def test_later(): pass"}, "later")
    adopted = repository.git("rev-parse", "--short", "adopted").strip()

    result = repository.compare()

    assert result.returncode == 1
    assert f'make compare ARGS="{repository.path} --before {adopted}~1"\n' in result.stdout
    assert "are the same: somebody has committed the change already." in result.stdout
    assert "those that passed" not in result.stdout


def test_the_first_line_appears_within_two_seconds(repository: Repository) -> None:
    slow = "import time\ntime.sleep(3)\n"
    repository.commit({"tests/test_slow.py": slow}, "slow")
    arguments = (repository.path, "--python", repository.python, "--before", "before")
    started = time.monotonic()

    with subprocess.Popen(  # noqa: S603 - our own command
        repository.command("compare", *arguments),
        cwd=HERE.parent,
        env=repository.variables(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        first = process.stdout.readline()
        taken = time.monotonic() - started
        process.send_signal(signal.SIGTERM)

    assert first == f"Copying before and {repository.path}; nothing is written into them.\n"
    assert taken < 2


def test_versions_and_columns_are_those_of_their_interpreter(repository: Repository) -> None:
    result = repository.compare("--before", "before", "--", "-k", "nested")

    assert "1 tests, those that passed on both sides" in result.stdout
    assert f"pytest {pytest.__version__}\n" in result.stdout
    assert "sqlalchemy" not in result.stdout
    assert "parallel" not in result.stdout


def test_a_folder_inside_the_repository_and_two_folders(repository: Repository) -> None:
    repository.commit({"backend/test_it.py": "def test_it(): pass"}, "inside")
    old = repository.path.parent / "old"
    repository.git("worktree", "add", "--quiet", str(old), "inside")
    repository.write({"new.txt": ""})
    backend = repository.path / "backend"

    repository.folder = backend

    inside = repository.compare("--before", "inside")
    folders = repository.compare("--before", str(old / "backend"), "--after", str(backend))

    assert "1 tests, those that passed on both sides" in inside.stdout, inside.stdout
    assert "1 tests, those that passed on both sides" in folders.stdout, folders.stdout


def test_a_checkout_tests_its_own_code(repository: Repository, their_python: Path) -> None:
    checks = "import code_of_theirs\ndef test_it(): assert code_of_theirs.VALUE == {}\n"
    for value in (1, 2):
        source = {"src/code_of_theirs.py": f"VALUE = {value}", "test_it.py": checks.format(value)}
        repository.commit(source, f"value-{value}")
    (packages,) = their_python.parent.parent.glob("lib/*/site-packages")
    editable = packages / "theirs.pth"
    editable.write_text(str(repository.path / "src"), encoding="utf-8")

    try:
        result = repository.compare("--before", "value-1", "--after", "value-2", "--", "test_it.py")
    finally:
        editable.unlink()

    assert result.returncode == 0, result.stdout


OLD = """
import os
import pytest_asyncio
from httpx import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import create_async_engine
from app.db import Base, SessionLocal
from app.main import app
from app.roles import setup_roles

@pytest_asyncio.fixture
async def client():
    engine = create_async_engine(os.environ["OLD_URL"])
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    SessionLocal.configure(bind=engine)
    async with SessionLocal() as session:
        await setup_roles(session)
    yield AsyncClient(transport=ASGITransport(app), base_url="http://test")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()
"""
TESTS = """
import pytest

@pytest.mark.parametrize("number", range(5))
async def test_it(client, number):
    assert (await client.post("/users/ada")).status_code == 200
    assert (await client.get("/users/count")).json() == 1
"""


def test_an_adopted_conftest_gets_its_table(project: Project, spare_database: str) -> None:
    theirs = Repository(project.path, Path(sys.executable))
    for folder in ("app", "tests"):
        shutil.copytree(project.path / folder, theirs.path / folder)
    shutil.rmtree(theirs.path / "tests" / FOLDER)
    settings = {"pytest.ini": "[pytest]\nasyncio_mode = auto\n", "tests/test_it.py": TESTS}
    theirs.commit({**settings, "tests/conftest.py": OLD}, "before")
    copy_ours(theirs.path / "tests")
    theirs.environment |= {**project.environment, "OLD_URL": spare_database}
    file = project.path / "figures.json"

    result = theirs.compare("--workers", "2", "--json", str(file))

    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert figures["tests"] == 5
    assert [each["passed"] for each in figures["strategies"].values()] == [5, 5, 5]
    before, after = (figures["strategies"][name] for name in ("before", "after"))
    assert before["ddl"] > after["ddl"]
    assert figures["ratio"] == pytest.approx(before["median_s"] / after["median_s"], abs=0.01)
    assert "What to fix next, by one run under the profiler:\n1. " in result.stdout


def test_settings_that_ask_for_workers_get_no_further_column(tmp_path: Path) -> None:
    theirs = Repository(tmp_path, Path(sys.executable))
    settings = {"pytest.ini": "[pytest]\naddopts = -n 2\n", "test_it.py": "def test_it(): pass"}
    theirs.commit(settings, "both")
    theirs.write({"new.txt": ""})

    result = theirs.compare("--before", "both")

    assert result.returncode == 0, result.stdout
    assert re.search(r"│ before -n 2 .*\n│ after -n 2 .*\n└", result.stdout), result.stdout
