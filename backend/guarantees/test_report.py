"""Promise 10: a line at the start says which server and schema, one at the end what was special."""

import re
import secrets

import pytest

from guarantees.conftest import Project

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
def test_the_end_tells_what_was_cloned_and_refused(project: Project, arguments: list[str]) -> None:
    project.write(
        "tests/test_it.py",
        """
import pytest
from app.db import engine

async def test_ordinary(db): pass

@pytest.mark.fresh_database
async def test_1_fresh(db): pass

@pytest.mark.fresh_database
async def test_2_fresh(db): pass

async def test_refused(db):
    async with engine.connect(): pass
""",
    )

    result = project.run(*arguments)

    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["database: 2 tests on a new one, 1 refused"])


@pytest.mark.parametrize(
    ("seconds", "arguments", "lost"),
    [
        pytest.param(0, ["-n", "2"], True, id="short tests"),
        pytest.param(6, ["-n", "2"], False, id="long tests"),
        pytest.param(0, [], False, id="one process"),
    ],
)
def test_the_end_says_when_parallel_took_longer(
    project: Project, seconds: int, arguments: list[str], *, lost: bool
) -> None:
    project.write(
        "tests/test_it.py",
        f"""
import asyncio, pytest

@pytest.mark.parametrize("number", range(2))
async def test_it(db, number):
    await asyncio.sleep({seconds})
""",
    )

    result = project.run(*arguments)

    result.assert_outcomes(passed=2)
    assert any(line.startswith("-n lost: its workers took ") for line in result.outlines) == lost
