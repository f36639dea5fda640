"""Promise 11: in projects of other shapes, what changes is the block, by ten lines at most.

`make shapes` runs these in an environment of their own: SQLModel and fastapi-users need older
versions of the packages that the reference application uses. Each folder of shapes/ is what a
project has in place of the example's files, and its block, unless that is the reference block.
"""

import ast
import re
import shutil

import pytest
from upgrade.blocks import SHAPES, blocks, usual
from upgrade.change import releases, upgrade
from upgrade.parts import (
    OLD_ACTORS,
    OLD_VERSION,
    Parts,
    bound,
    changed_lines,
    comments,
    compose,
    parts,
)

from guarantees.project import REAL_CONFTEST, Project
from guarantees.report import counts, ran_again
from guarantees.test_no_commit import write as attacks_on_the_transaction

# How many tests each shape has, all of which pass; and which of them are variations of `plain`.
TESTS = {
    "plain": 3,
    "alembic": 3,
    "anyio": 2,
    "bcrypt": 2,
    "container": 3,
    "core": 4,
    "engine_options": 7,
    "factory": 2,
    "fastapi_users": 3,
    "manager": 2,
    "no_factory": 3,
    "no_settings": 2,
    "psycopg": 6,
    "redis": 2,
    "schemas": 2,
    "sqlmodel": 2,
    "src": 2,
    "strict_mode": 2,
    "swapped_engine": 5,
    "tenants": 3,
    "two_apps": 3,
    "two_databases": 2,
    "user_manager": 4,
}
WITHOUT_USERS = {
    "container",
    "core",
    "engine_options",
    "no_factory",
    "redis",
    "swapped_engine",
    "tenants",
    "two_databases",
}


def lay_out(project: Project, shape: str) -> None:
    """Make the example a project of this shape, with its block in the conftest."""
    no_block = shutil.ignore_patterns("block.py")
    for layer in (["plain"] if shape in WITHOUT_USERS else []) + [shape]:
        shutil.copytree(SHAPES / layer, project.path, dirs_exist_ok=True, ignore=no_block)
    if shape == "src":
        (project.path / "src").mkdir()
        (project.path / "app").rename(project.path / "src" / "app")
    if shape == "psycopg":
        url = project.environment["TEST_DATABASE_URL"]
        project.environment["TEST_DATABASE_URL"] = url.replace("+asyncpg", "+psycopg")
    conftest = compose(REAL_CONFTEST.read_text(encoding="utf-8"), blocks()[shape])
    project.write("tests/conftest.py", conftest)


def in_the_form_of_0_1(block: str) -> str:
    """Return the conftest of 0.1 with a block as it was then: other names, actors at the end."""
    old = parts(releases()[OLD_VERSION])
    actors, lines = [], block.splitlines(keepends=True)
    authenticated = False
    for statement in ast.parse(block).body:
        source = slice(statement.lineno - 1, statement.end_lineno)
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and authenticated:
            begin = min(each.lineno for each in statement.decorator_list) - 1
            source = slice(begin, statement.end_lineno)
            actors += ["\n\n", *lines[source]]
        elif not bound(statement) & {"REAL_COMMITS", "ALLOWED", "BASE_URL"}:
            authenticated |= "authenticate" in bound(statement)
            continue
        lines[source] = [""] * (source.stop - source.start)
    then = re.sub(r"\bAPP\b", "application", "".join(lines))
    for mark, comment in comments(block).items():
        then = then.replace(comment, comments(old.block)[mark])
    was = Parts(old.head, then.strip() + "\n\n\n", old.machinery)
    return (
        "".join(was[:3])
        + f"\n\n{OLD_ACTORS}\n"
        + re.sub(r"\bAPP\b", "application", "".join(actors))
    )


@pytest.mark.parametrize("shape", TESTS)
def test_the_block_is_all_that_changes(project: Project, shape: str) -> None:
    lay_out(project, shape)

    result = project.run()

    result.assert_outcomes(passed=TESTS[shape])
    assert changed_lines(blocks()[shape], usual()) <= 10


@pytest.mark.parametrize("shape", TESTS)
def test_a_copy_of_0_1_passes_after_its_upgrade(project: Project, shape: str) -> None:
    lay_out(project, shape)
    copied = in_the_form_of_0_1(blocks()[shape])
    assert not re.search(r"^(APP|BASE_URL|REAL_COMMITS|ALLOWED)\b", copied, re.MULTILINE)

    done = upgrade(copied, releases())
    project.write("tests/conftest.py", done.text)
    result = project.run()

    result.assert_outcomes(passed=TESTS[shape])


def test_another_driver_runs_on_workers_too(project: Project) -> None:
    lay_out(project, "psycopg")

    result = project.run("-n", "2")

    result.assert_outcomes(passed=TESTS["psycopg"])


def test_no_driver_can_end_the_transaction(project: Project) -> None:
    lay_out(project, "psycopg")
    names = attacks_on_the_transaction(project)

    result = project.run()

    assert "test_look_" not in str(result.stdout)
    assert len(ran_again(result)) + counts(result)[2] == len(names)


def test_a_shape_that_nobody_runs_does_not_exist() -> None:
    assert sorted(TESTS) == sorted(set(blocks()) - {"usual"})
