"""Promise 5: a database for each worker; two whole runs at once on one server do not meet."""

import re

import pytest
from sqlalchemy import make_url

from guarantees.project import Project
from guarantees.servers import Database

TESTS = """
import asyncio
import pytest
import sqlalchemy as sa

@pytest.mark.parametrize("time", range(8))
async def test_starts_empty(client, db, time):
    print("DATABASE", await db.scalar(sa.text("SELECT current_database()")))
    await client.post("/users/ada")
    assert (await client.get("/users/count")).json() == 1

async def test_gathered_requests_are_served_one_after_another(client):
    responses = await asyncio.gather(*(client.post(f"/users/{n % 4}") for n in range(12)))
    assert sorted(each.status_code for each in responses) == [200] * 4 + [409] * 8
"""


def databases(output: str) -> set[str]:
    """Return the databases that the tests printed."""
    return set(re.findall(r"DATABASE (\w+)", output))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_each_worker_has_a_database_that_is_dropped_afterwards(
    project: Project, database: Database, workers: int
) -> None:
    project.write("tests/test_it.py", TESTS)

    result = project.run("-n", str(workers), "-rP", "--dist", "each" if workers == 1 else "load")

    result.assert_outcomes(passed=9)
    used = databases(str(result.stdout))
    assert len(used) == workers
    assert used.isdisjoint(database.leftovers())


def test_two_runs_at_once_with_different_schemas_both_pass(project: Project) -> None:
    project.write("tests/test_it.py", TESTS)
    first = project.start()
    desk = "desk: Mapped[int | None]"
    project.replace("app/models.py", desk, f"{desk}\n    shoe: Mapped[int | None]")
    second = project.start("-n", "2")

    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]

    assert [("9 passed" in output) for output in outputs] == [True, True], outputs
    assert len(set.union(*map(databases, outputs))) == 3


def test_workers_get_the_whole_url_with_its_password(project: Project, database: Database) -> None:
    url = make_url(database.url).set(password="s3cret/@:")  # noqa: S106 - nobody asks for it here
    project.environment["TEST_DATABASE_URL"] = url.render_as_string(hide_password=False)
    project.write(
        "tests/test_it.py",
        """
from fastapi_conftest import schema_once
from sqlalchemy import make_url

async def test_it(db):
    assert make_url((await schema_once()).url).password == 's3cret/@:'
""",
    )

    result = project.run("-n", "1")

    result.assert_outcomes(passed=1)


def test_the_databases_of_a_worker_that_crashes_are_dropped_at_the_end(
    project: Project, database: Database
) -> None:
    project.write(
        "tests/test_it.py",
        """
import os
import pytest

@pytest.mark.parametrize("number", range(6))
async def test_it(db, number):
    if number == 3:
        os.kill(os.getpid(), 9)
""",
    )

    result = project.run("-n", "2")

    assert result.parseoutcomes()["failed"] == 1
    assert database.leftovers() == []
