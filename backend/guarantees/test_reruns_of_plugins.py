"""Promise 12: beside a plugin that runs failed tests again, and without it."""

import pytest

from guarantees.noting import THREE, TWICE, noted, write
from guarantees.project import Project
from guarantees.report import ENDS, ran_again

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
