"""Promise 12: with the lines that the report prints, what ran again runs once."""

import re
from ast import literal_eval

import pytest
from fastapi_conftest.report import to_paste

from guarantees.noting import ONCE, THREE, noted, write
from guarantees.project import Project
from guarantees.report import ENDS, counts, lines_to_paste, ran_again


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


def test_an_entry_with_the_group_of_xdist_is_found(project: Project) -> None:
    write(project, THREE)
    project.isolate("real_commits=['tests/test_it.py::test_2@group']")

    result = project.run()

    result.assert_outcomes(passed=3)
    assert ran_again(result) == {}
