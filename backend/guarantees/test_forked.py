"""Promise 5, on workers that are forked: pytest-zygote calls pytest's protocol past its hook."""

import re
import sys

import pytest

from guarantees.project import Project
from guarantees.report import ENDS, counts, ran_again
from guarantees.servers import Database

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")

EMPTY = """
import asyncio
import os
import pytest
import sqlalchemy as sa

@pytest.mark.parametrize("time", range(8))
async def test_starts_empty(client, db, time):
    print("DATABASE", os.getpid(), await db.scalar(sa.text("SELECT current_database()")))
    await client.post("/users/ada")
    assert (await client.get("/users/count")).json() == 1
    await asyncio.sleep(0.05)
"""
REFUSED = """
import sqlalchemy as sa

async def test_commits(client, db):
    await client.post("/users/ada")
    await db.execute(sa.text("COMMIT"))

async def test_finds_nothing(client):
    assert (await client.get("/users/count")).json() == 0
"""
CRASHES = """
import os
import pytest

@pytest.mark.parametrize("number", range(6))
async def test_it(db, number):
    if number == 3:
        os.kill(os.getpid(), 9)
"""
FAILS = """
import pytest

@pytest.mark.parametrize("number", range(20))
async def test_it(db, number):
    assert number != 3
"""


def test_each_forked_worker_has_a_database_that_is_dropped_afterwards(
    project: Project, database: Database
) -> None:
    project.write("tests/test_it.py", EMPTY)

    result = project.run("--workers", "2", "-rP")

    result.assert_outcomes(passed=8)
    used = set(re.findall(r"DATABASE (\d+) (\w+)", str(result.stdout)))
    assert [len(set(each)) for each in zip(*used, strict=True)] == [2, 2]
    assert database.leftovers() == []


def test_a_refused_test_runs_again_with_real_commits_in_a_forked_worker(
    project: Project, database: Database
) -> None:
    project.write("tests/test_it.py", REFUSED)

    result = project.run("--workers", "1")

    result.assert_outcomes(passed=2)
    assert ran_again(result) == {"test_commits": ENDS}
    assert counts(result)[0] == 1
    assert database.leftovers() == []


@pytest.mark.parametrize(
    ("tests", "options"),
    [pytest.param(CRASHES, [], id="crashes"), pytest.param(FAILS, ["-x"], id="stopped early")],
)
def test_what_forked_workers_have_not_dropped_is_dropped_at_the_end(
    project: Project, database: Database, tests: str, options: list[str]
) -> None:
    project.write("tests/test_it.py", tests)

    result = project.run("--workers", "2", *options)

    assert result.parseoutcomes()["failed"] == 1
    assert database.leftovers() == []


def test_a_wrong_set_up_ends_the_run_of_forked_workers_with_one_message(project: Project) -> None:
    project.replace("tests/conftest.py", "seed_once(engine", "seed_once(application")
    project.write("tests/test_it.py", EMPTY)

    result = project.run("--workers", "2")

    output = str(result.stdout) + str(result.stderr)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert output.count("is not the engine of clone_for_this_worker") == 1
