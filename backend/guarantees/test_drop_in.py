"""Promise 11: a project of any shape has a whole conftest of its own, and it is short.

`make shapes` runs these in an environment of their own: SQLModel and fastapi-users need older
versions of the packages that the reference application uses. Each folder of shapes/ is what a
project has in place of the example's files; one without a tests/conftest.py has the reference
conftest, or that of `plain` where it is laid out on top of it.
"""

import shutil
from pathlib import Path

import pytest

from benchmark.example import REAL_CONFTEST
from guarantees.project import HERE, Project
from guarantees.report import counts, ran_again

SHAPES = HERE / "shapes"
# How many tests each shape has, all of which pass; and which of them are variations of `plain`.
TESTS = {
    "plain": 3,
    "alembic": 3,
    "anyio": 2,
    "bcrypt": 2,
    "both_kinds": 3,
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
    "sync_tests": 3,
    "synchronous": 6,
    "tenants": 3,
    "test_client": 3,
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


def conftest_of(shape: str) -> Path:
    """Return the conftest that a project of this shape has."""
    own = SHAPES / shape / "tests" / "conftest.py"
    return own if own.exists() else REAL_CONFTEST


def length(conftest: Path) -> int:
    """Return how many lines a conftest has."""
    return len(conftest.read_text(encoding="utf-8").splitlines())


def lay_out(project: Project, shape: str) -> None:
    """Make the example a project of this shape."""
    for layer in (["plain"] if shape in WITHOUT_USERS else []) + [shape]:
        shutil.copytree(SHAPES / layer, project.path, dirs_exist_ok=True)
    if shape == "src":
        (project.path / "src").mkdir()
        (project.path / "app").rename(project.path / "src" / "app")
    if shape == "psycopg":
        url = project.environment["TEST_DATABASE_URL"]
        project.environment["TEST_DATABASE_URL"] = url.replace("+asyncpg", "+psycopg")


@pytest.mark.parametrize("shape", TESTS)
def test_each_shape_runs_with_its_conftest(project: Project, shape: str) -> None:
    lay_out(project, shape)

    result = project.run()

    result.assert_outcomes(passed=TESTS[shape])


@pytest.mark.parametrize("shape", TESTS)
def test_no_conftest_is_long(shape: str) -> None:
    assert length(conftest_of(shape)) <= 150


def test_the_smallest_conftest_is_short() -> None:
    assert length(conftest_of("plain")) <= 70


def test_another_driver_runs_on_workers_too(project: Project) -> None:
    lay_out(project, "psycopg")

    result = project.run("-n", "2")

    result.assert_outcomes(passed=TESTS["psycopg"])


def test_synchronous_tests_of_an_asynchronous_application_need_no_real_commits(
    project: Project,
) -> None:
    lay_out(project, "sync_tests")

    result = project.run()

    result.assert_outcomes(passed=TESTS["sync_tests"])
    assert counts(result) == (0, 0, 0)
    assert ran_again(result) == {}


@pytest.mark.usefixtures("folder")
def test_without_url_the_driver_is_the_one_of_the_app(project: Project) -> None:
    shutil.copytree(SHAPES / "psycopg", project.path, dirs_exist_ok=True)

    result = project.run()

    result.assert_outcomes(passed=TESTS["psycopg"])


def test_a_shape_that_nobody_runs_does_not_exist() -> None:
    assert sorted(TESTS) == sorted(path.name for path in SHAPES.iterdir() if path.is_dir())
