"""Shards make up the whole suite, each test once, or the merge fails and names the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from guarantees.project import HERE, Project

TESTS = """
import pytest

class TestA:
    @pytest.mark.parametrize("text", ["x.y::z", "[[", "/", "\\x00", "é"])
    def test_any_name(self, text): pass

def test_b(): pass
def test_c(): pass
"""


@pytest.fixture
def shards(project: Project) -> Project:
    """A project whose two shards have run."""
    pytest.importorskip("pytest_split", reason="only in the environment of `make test`")
    project.write("pytest.ini", "[pytest]\n")
    project.write("tests/test_it.py", TESTS)
    for number in (1, 2):
        run_shard(project, number)
    return project


def run_shard(project: Project, number: int) -> None:
    """Run one of two shards, as `make test-shard` does."""
    report = f"shards/shard-{number}-of-2.xml"
    split = ["--splits", "2", "--group", str(number), "--splitting-algorithm", "least_duration"]
    project.run("tests", "--junitxml", report, *split)


def merge(project: Project) -> subprocess.CompletedProcess[str]:
    """Merge the shards, as `make merge-shards` does."""
    return subprocess.run(
        [sys.executable, "-m", "ci.shards", "shards", "tests"],
        cwd=project.path,
        env={**os.environ, **project.environment, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def report(project: Project, number: int) -> Path:
    """Return the report of a shard."""
    return project.path / "shards" / f"shard-{number}-of-2.xml"


def test_two_shards_make_up_the_suite(shards: Project) -> None:
    result = merge(shards)

    assert result.returncode == 0, result.stderr
    assert result.stdout == "7 of 7 tests ran, 0 problems. Reports: shard-1-of-2, shard-2-of-2\n"
    assert (shards.path / "shards" / "all.xml").read_text(encoding="utf-8").count("<testcase") == 7


def test_the_tests_of_a_shard_that_never_reported_are_named(shards: Project) -> None:
    lost = report(shards, 2).read_text(encoding="utf-8").count("<testcase")
    report(shards, 2).unlink()

    result = merge(shards)

    assert result.returncode == 1
    assert result.stderr.count(" did not run\n") == lost > 0
    assert f"{7 - lost} of 7 tests ran, {lost} problems" in result.stdout


def test_a_test_that_ran_twice_is_named(shards: Project) -> None:
    twice = report(shards, 1).read_text(encoding="utf-8")
    (shards.path / "shards" / "shard-3-of-2.xml").write_text(twice, encoding="utf-8")

    result = merge(shards)

    assert result.returncode == 1
    assert result.stderr.count(" ran more than once\n") == twice.count("<testcase")


def test_a_test_that_failed_is_named(shards: Project) -> None:
    shards.replace("tests/test_it.py", "def test_b(): pass", "def test_b(): assert False")
    for number in (1, 2):
        run_shard(shards, number)

    result = merge(shards)

    assert result.returncode == 1
    assert result.stderr == "tests.test_it::test_b failed\n"


def test_a_test_that_the_suite_does_not_have_is_named(shards: Project) -> None:
    shards.replace("tests/test_it.py", "def test_c(): pass\n", "")

    result = merge(shards)

    assert result.returncode == 1
    assert result.stderr == "tests.test_it::test_c is not in the suite\n"


@pytest.mark.parametrize("shard", ["", "x", "0/4", "5/4", "1/0"])
def test_a_shard_that_cannot_be_is_refused(shard: str) -> None:
    result = subprocess.run(  # noqa: S603 - our own command
        ["make", "test-shard", f"SHARD={shard}"],  # noqa: S607 - make is on everybody's path
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 2
    assert (
        f"SHARD={shard} is no part of the suite; type: make test-shard SHARD=2/4" in result.stderr
    )
