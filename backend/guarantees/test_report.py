"""Promise 10: a line at the start says which server and schema, one at the end what was special."""

import re
import secrets

import pytest

from guarantees.project import Project
from guarantees.report import ENDS, causes, counts, ran_again

LINE = (
    r"database: PostgreSQL \d+\.\d+ at \S+, schema (\w+)"
    r"(, \d+ left-over databases dropped)?, ready in \d+ ms"
)


def test_the_header_tells_a_new_schema_from_a_known_one(project: Project) -> None:
    comment = f'__table_args__ = {{"comment": "{secrets.token_hex(8)}"}}'
    project.replace(
        "app/models.py", '__tablename__ = "roles"', f'__tablename__ = "roles"\n    {comment}'
    )
    project.write("tests/test_it.py", "async def test_it(db): pass")

    first, second = project.run(), project.run()

    states = [
        [match[1] for line in result.outlines if (match := re.fullmatch(LINE, line))]
        for result in (first, second)
    ]
    assert states == [["built"], ["cached"]]


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["serial", "parallel"])
def test_the_end_tells_what_was_special(project: Project, arguments: list[str]) -> None:
    project.write(
        "tests/test_it.py",
        """
import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

async def test_ordinary(db): pass

@pytest.mark.fresh_database
@pytest.mark.parametrize("time", range(3))
async def test_real(db, time): pass

@pytest.mark.fresh_database
@pytest.mark.parametrize("time", range(2))
async def test_cloned(db, time):
    await db.execute(sa.text("CREATE TABLE extra ()"))
    await db.commit()

@pytest.mark.parametrize("time", range(2))
async def test_refused(db, time):
    async with create_async_engine("postgresql+asyncpg://127.0.0.1:1/elsewhere").connect(): pass

@pytest.mark.parametrize("time", range(2))
async def test_again(db, time):
    await db.execute(sa.text("COMMIT"))

async def test_left(db):
    asyncio.create_task(wait_for_ever())

async def wait_for_ever():
    await asyncio.sleep(99)
""",
    )

    result = project.run(*arguments)

    result.assert_outcomes(passed=9, failed=2)
    real, _, refused = counts(result)
    assert (real, refused) == (7, 2)
    assert ran_again(result) == {f"test_again[{number}]": ENDS for number in range(2)}
    ddl = [number for cause, number in causes(result).items() if cause.startswith("DDL or TRUNC")]
    assert ddl == [2]
    assert list(causes(result, "refused").values()) == [2]
    assert causes(result, "left") == {"wait_for_ever": 1}
    result.stdout.fnmatch_lines(
        ["To see whether the failed tests pass with real commits: pytest --lf --real-commits"]
    )


def test_the_end_says_nothing_where_no_test_ran(project: Project) -> None:
    project.write("tests/test_it.py", "async def test_it(db): pass")

    results = [project.run("-k", "none_of_them", *n) for n in ((), ("-n", "2"))]

    assert [each.ret for each in results] == [pytest.ExitCode.NO_TESTS_COLLECTED] * 2
    assert all("real commits" not in line for each in results for line in each.outlines)
