"""Promise 12: a test that rollback cannot serve runs again with real commits, and is named."""

import re
from ast import literal_eval
from xml.etree import ElementTree as ET

import pytest
from fastapi_conftest.report import to_paste

from guarantees.project import Project
from guarantees.report import ENDS, UNCOMMITTED, causes, counts, lines_to_paste, ran_again

IMPORTS = """
import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.db import engine as apps_engine
from app.models import User

def note(text):  # for the look from outside, whatever the run prints
    with Path("noted.txt").open("a") as file:
        file.write(text + chr(10))

async def end(db):
    await db.execute(sa.text("COMMIT"))
"""
THREE = """
async def test_1(db): note("1")

async def test_2(db):
    note("2")
    await end(db)

async def test_3(db): note("3")
"""
RERUNS = """  # in place of pytest-rerunfailures
from _pytest.runner import runtestprotocol

def pytest_addoption(parser):
    parser.addoption("--reruns", type=int)
    parser.addoption("--force-reruns", type=int)
    parser.addini("reruns", "how often")

def pytest_configure(config):
    config.addinivalue_line("markers", "flaky(reruns): runs again")

def pytest_runtest_protocol(item, nextitem):
    for _ in range(2):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if not any(report.failed for report in reports):
            break
        print("RERUN", item.name)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""
TWICE, ONCE = ["1", "2", "2", "3"], ["1", "2", "3"]


def write(project: Project, source: str) -> None:
    """Write the project's tests, behind the lines above."""
    project.write("tests/test_it.py", IMPORTS + source)


def noted(project: Project) -> list[str]:
    """Return what the inner tests have noted since the last look."""
    path = project.path / "noted.txt"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


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


def test_the_lines_of_the_report_have_it_start_with_real_commits(project: Project) -> None:
    write(project, THREE)
    first = project.run()
    noted(project)
    project.isolate(lines_to_paste(first))

    result = project.run()

    result.assert_outcomes(passed=3)
    assert noted(project) == ONCE
    assert (counts(result)[0], ran_again(result)) == (1, {})


ENTRIES = {
    "a test": "tests/test_it.py::test_2",
    "a file": "tests/test_it.py",
    "a folder": "tests",
    "from the folder of the conftest": "test_it.py::test_2",
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
@pytest.mark.parametrize("folder", [".", "tests"])
def test_entries_of_real_commits_are_found_from_each_folder(
    project: Project, entry: str, folder: str
) -> None:
    write(project, THREE)
    project.isolate(f"real_commits=[{entry!r}]")

    result = project.run("--rootdir", folder)

    result.assert_outcomes(passed=3)
    assert noted(project) == ONCE
    assert counts(result)[0] == (1 if "::" in entry else 3)


IDS = ["http://example.com", "/api/./x", "Müller", 'say "hi"', "it's", "a::b", "new\nline"]


def test_what_the_report_prints_can_be_pasted_whatever_the_name(project: Project) -> None:
    write(
        project,
        f"""
@pytest.mark.parametrize("value", {IDS!r}, ids={IDS!r})
async def test_it(db, value):
    note("it")
    await end(db)
""",
    )
    first = project.run()
    noted(project)
    project.isolate(lines_to_paste(first))

    result = project.run()

    result.assert_outcomes(passed=len(IDS))
    assert len(noted(project)) == len(IDS)
    assert ran_again(result) == {}


def test_a_reason_of_several_lines_is_one_comment() -> None:
    printed = "\n".join(to_paste({"tests/test_it.py::test_2": "SELECT 1\nFROM users"}, 1))

    (argument,) = re.findall(r"real_commits=(\[.*\])", printed, re.DOTALL)
    assert literal_eval(argument) == ["tests/test_it.py::test_2"]


def test_entries_are_found_through_a_link_to_the_project(project: Project) -> None:
    write(project, THREE)
    project.isolate("real_commits=['tests/test_it.py::test_2']")
    link = project.path.with_name("link")
    link.symlink_to(project.path)

    result = project.run("--rootdir", str(link), str(link / "tests"), folder=link)

    result.assert_outcomes(passed=3)
    assert ran_again(result) == {}


def test_an_entry_that_begins_like_another_test_is_not_that_one(project: Project) -> None:
    write(project, THREE.replace("test_2", "test_22"))
    project.write("tests/test_i.py", "")
    project.isolate("real_commits=['tests/test_it.py::test_2', 'tests/test_i.py']")

    result = project.run()

    assert ran_again(result) == {"test_22": ENDS}


def test_a_test_that_fails_again_is_not_among_the_lines_to_paste(project: Project) -> None:
    write(project, f"{THREE}\nasync def test_4(db):\n    await end(db)\n    assert False\n")

    result = project.run()

    result.assert_outcomes(passed=3, failed=1)
    assert ran_again(result) == {"test_2": ENDS}


def test_where_a_third_of_a_run_ran_again_the_whole_suite_is_advised(project: Project) -> None:
    write(
        project,
        """
@pytest.mark.parametrize("number", range(10))
async def test_it(db, number): await end(db)
""",
    )

    result = project.run()

    result.assert_outcomes(passed=10)
    result.stdout.fnmatch_lines(["10 of 10 tests ran again: isolate(..., real_commits=True)*"])


def test_it_does_not_end_a_run_that_ends_at_the_first_failure(project: Project) -> None:
    write(project, THREE)

    result = project.run("-x", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=3)
    assert noted(project) == TWICE


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


@pytest.mark.parametrize("how", ["--reruns=1", "--force-reruns=1", "the marker", "the setting"])
def test_a_plugin_that_runs_failed_tests_again_finds_the_marker(project: Project, how: str) -> None:
    project.write("rerunfailures.py", RERUNS)
    marker = "pytestmark = pytest.mark.flaky\n" if how == "the marker" else ""
    write(project, marker + THREE)
    options = {"the marker": [], "the setting": ["-o", "reruns=1"]}.get(how, [how])

    result = project.run("-p", "rerunfailures", "-s", *options)

    result.assert_outcomes(passed=3)
    assert noted(project) == TWICE
    assert str(result.stdout).count("RERUN test_2") == 1
    assert list(ran_again(result)) == ["test_2"]


def test_the_marker_of_a_plugin_that_is_not_there_changes_nothing(project: Project) -> None:
    write(project, f"pytestmark = pytest.mark.flaky\n{THREE}")

    result = project.run("-s")

    result.assert_outcomes(passed=3)
    assert noted(project) == TWICE
    assert list(ran_again(result)) == ["test_2"]


def test_where_that_plugin_is_switched_off_it_runs_again_all_the_same(project: Project) -> None:
    project.write("rerunfailures.py", RERUNS)
    write(project, THREE)

    result = project.run("-p", "rerunfailures", "-s", "-o", "reruns=1", "--reruns=0")

    result.assert_outcomes(passed=3)
    assert noted(project) == TWICE
    assert "RERUN test_2" not in str(result.stdout)


def test_with_that_plugin_too_refusals_can_be_final(project: Project) -> None:
    project.write("rerunfailures.py", RERUNS)
    write(project, THREE)

    result = project.run("-p", "rerunfailures", "-s", "--reruns=1", "--refusals-fail")

    result.assert_outcomes(passed=2, failed=1)


def test_a_refusal_that_a_test_swallows_is_a_failure_to_that_plugin(project: Project) -> None:
    write(
        project,
        """
@pytest.mark.flaky
async def test_it(db):
    await asyncio.gather(end(db), return_exceptions=True)
""",
    )
    project.write("rerunfailures.py", RERUNS)

    result = project.run("-p", "rerunfailures", "-s")

    result.assert_outcomes(passed=1)
    assert "RERUN test_it" in str(result.stdout)
    assert ran_again(result) == {"test_it": ENDS}


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
    result.stdout.fnmatch_lines(["*Refused: this would end the transaction of the test.*"])


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
