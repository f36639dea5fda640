"""Promise 12: a test that rollback cannot serve runs again with real commits, and is named."""

from xml.etree import ElementTree as ET

import pytest

from guarantees.noting import ONCE, THREE, TWICE, noted, write
from guarantees.project import Project
from guarantees.report import ENDS, UNCOMMITTED, causes, counts, ran_again


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["serial", "parallel"])
def test_it_runs_again_at_once_and_the_report_says_why(
    project: Project, arguments: list[str]
) -> None:
    write(project, THREE)

    result = project.run(*arguments)

    result.assert_outcomes(passed=3)
    assert ran_again(result) == {"test_2": ENDS}
    assert counts(result)[0] == 1
    assert causes(result, "retry") == {}  # it is told once
    assert sorted(noted(project)) == TWICE


def test_the_first_run_makes_no_traceback_which_takes_longer_than_the_test(
    project: Project,
) -> None:
    write(project, THREE)
    project.write(
        "tests/plugin.py",
        "def pytest_exception_interact(report): print(report.longreprtext)",
    )

    again = project.run("-s", "-p", "tests.plugin")
    final = project.run("-s", "-p", "tests.plugin", "--refusals-fail")

    assert "test_it.py:" not in str(again.stdout).partition("tests ran again")[0]
    assert "test_it.py:" in str(final.stdout).partition("= FAILURES =")[0]


def test_it_does_not_end_a_run_that_ends_at_the_first_failure(project: Project) -> None:
    write(project, THREE)

    result = project.run("-x", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=3)
    assert noted(project) == TWICE


@pytest.mark.parametrize("stops", [["-x"], ["--maxfail", "2"]], ids=["-x", "--maxfail"])
def test_a_run_that_ends_early_reports_an_error_at_the_end_of_a_wider_fixture(
    project: Project, stops: list[str]
) -> None:
    project.write(
        "tests/test_it.py",
        """
import pytest

@pytest.fixture(scope="session")
def wide():
    yield
    raise RuntimeError("at the end")

@pytest.mark.parametrize("number", range(5))
def test_it(db, wide, number): assert number < 1
""",
    )

    result = project.run(*stops)

    result.assert_outcomes(passed=1, failed=len(stops), errors=1)
    result.stdout.fnmatch_lines(["*RuntimeError: at the end*", "*stopping after * failures*"])


def test_a_refusal_is_final_where_refusals_fail(project: Project) -> None:
    write(project, THREE)

    result = project.run("--refusals-fail")

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["E * Failed: Refused: " + ENDS])
    assert ran_again(result) == {}
    assert noted(project) == ONCE


def test_a_refusal_is_final_in_the_debugger(project: Project) -> None:
    write(project, THREE)

    result = project.run("--pdb")  # has no input, and so ends the run

    result.stdout.fnmatch_lines(["E * Failed: Refused: " + ENDS, "*entering PDB*"])
    assert noted(project) == ONCE[:2]


def test_a_refusal_that_was_swallowed_counts(project: Project) -> None:
    write(
        project,
        """
async def test_by_gather(client, db):
    note("gather")
    db.add(User(email="ada"))
    await db.flush()
    await asyncio.gather(client.get("/users/count"), return_exceptions=True)

async def test_by_raises(db):
    note("raises")
    try:
        await end(db)
    except BaseException:
        pass
""",
    )

    result, order = project.run(), noted(project)
    final = project.run("--refusals-fail", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=2)
    assert order == ["gather", "gather", "raises", "raises"]
    again = ran_again(result)
    assert again["test_by_raises"] == ENDS
    assert again["test_by_gather"].startswith(UNCOMMITTED)
    final.assert_outcomes(passed=2, errors=2)
    assert str(final.stdout).count("The test has swallowed this, and passed.") == 2


def test_what_the_first_run_was_refused_for_good_is_told_once(project: Project) -> None:
    write(
        project,
        """
from sqlalchemy.ext.asyncio import create_async_engine

async def test_it(db):
    with pytest.raises(pytest.fail.Exception):
        await create_async_engine("postgresql+asyncpg://127.0.0.1:1/elsewhere").connect()
    await end(db)
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1, errors=1)  # it has swallowed the refusal
    assert counts(result)[2] == 1


def test_the_junit_report_has_one_case_for_it_and_nothing_of_ours(project: Project) -> None:
    write(project, THREE)

    project.run("--junitxml", "report.xml")

    cases = ET.parse(project.path / "report.xml").findall(".//testcase")  # noqa: S314 - our own
    assert [case.get("name") for case in cases] == ["test_1", "test_2", "test_3"]
    assert [case.findall("properties") for case in cases] == [[], [], []]
    assert not any(case.findall("failure") for case in cases)


def test_fixtures_of_every_scope_serve_both_runs(project: Project) -> None:
    write(
        project,
        """
@pytest.fixture(scope="module", autouse=True)
def of_module():
    note("module")
    yield "module"
    note("end of module")

@pytest.fixture(scope="class")
def of_class(of_module):
    note("class")
    yield of_module
    note("end of class")

@pytest.fixture
async def in_its_set_up(db):
    await end(db)

@pytest.fixture
async def in_its_tear_down(db):
    yield
    await end(db)

class TestClass:
    async def test_a(self, db, of_class):
        note("a")
        assert of_class == "module" and not hasattr(self, "state")
        self.state = "of the first run"
        await end(db)

    async def test_b(self, db, of_class):
        assert not hasattr(self, "state")
        note("b")

@pytest.mark.parametrize("number", [1, 2])
async def test_c(db, number):
    note(f"c{number}")
    if number == 2:
        await end(db)

async def test_d(in_its_set_up): note("d")

async def test_e(in_its_tear_down): note("e")
""",
    )

    result = project.run()

    result.assert_outcomes(passed=6)
    # The last test of a module runs again after the end of the module's fixtures.
    in_class = ["module", "class", "a", "a", "b", "end of class"]
    behind = ["c1", "c2", "c2", "d", "e", "end of module", "module", "e", "end of module"]
    assert noted(project) == in_class + behind
    assert sorted(name.split("::")[-1] for name in ran_again(result)) == [
        "test_a",
        "test_c[2]",
        "test_d",
        "test_e",
    ]


def test_the_second_run_decides_about_an_expected_failure(project: Project) -> None:
    write(
        project,
        """
@pytest.mark.xfail(strict=True)
async def test_fails_in_production_too(db):
    await end(db)
    raise RuntimeError

@pytest.mark.xfail(strict=True)
async def test_passes_in_production(db):
    await end(db)

@pytest.mark.xfail(strict=True)
async def test_is_refused_for_good(db):
    async with apps_engine.connect(): pass
    await end(db)
    raise RuntimeError
""",
    )

    result = project.run()

    result.assert_outcomes(xfailed=2, failed=1)
    result.stdout.fnmatch_lines(["*XPASS(strict)*"])


def test_one_that_fails_both_times_shows_its_refusal(project: Project) -> None:
    write(
        project,
        """
async def test_it(db):
    await end(db)
    raise RuntimeError("the test's own")
""",
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E * RuntimeError: the test's own", "*Refused at first, without real commits*", ENDS]
    )
    assert ran_again(result) == {}


def test_what_real_commits_cannot_serve_is_refused_once(project: Project) -> None:
    write(
        project,
        """
from sqlalchemy.ext.asyncio import create_async_engine

async def test_it(db):
    note("it")
    async with create_async_engine("postgresql+asyncpg://127.0.0.1:1/elsewhere").connect(): pass
""",
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    assert noted(project) == ["it"]
    assert ran_again(result) == {}


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest 9 brings the fixture subtests")
def test_a_test_with_subtests_does_not_run_again(project: Project) -> None:
    write(
        project,
        """
async def test_it(db, subtests):
    note("it")
    with subtests.test("a"):
        await end(db)
""",
    )

    result = project.run()

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert noted(project) == ["it"]
    result.stdout.fnmatch_lines([f"*Refused: {ENDS}*"])


def test_a_test_case_does_not_run_again(project: Project) -> None:
    write(
        project,
        """
import unittest

from fastapi_conftest.record import refuse

class TestIt(unittest.TestCase):
    def test_it(self):
        note("it")
        refuse("what real commits could do.")
""",
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    assert noted(project) == ["it"]
    assert "_testMethodName" not in str(result.stdout)
