"""What the report tells of the tests' databases, and which tests run again.

A test that rollback could not serve is run again at once, with real commits; its first run is not
reported. The record of a test travels with the report of its teardown, from whichever process.
"""

import functools
from asyncio import CancelledError
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from json import dumps
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from .project import PREFIX
from .record import CLONED, ENDS_THE_RUN, REFUSED, RETRY, Record, Refusal, SetUpError, running

RECORD = pytest.StashKey[Record]()  # of a test's last run
RUNS = pytest.StashKey[list[Any]]()  # the reports of each run of the test that runs
TWICE = "\nWhat both runs have left outside the database, such as files or lists, is there twice."
WRONG = "the set-up is wrong: "
SCOPE = (
    "A fixture that lives longer than a test asks for one of the test's own, such as db, client or "
    "override_get_db. Leave out its scope=, and that of the fixtures that ask for it."
)
MANY = 10  # tests that ran again, from which on a suite may as well start with real commits


def refusals_fail(config: pytest.Config) -> bool:
    """Tell whether no refused test is to run again."""
    return bool(config.getoption("--refusals-fail", default=False))


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test again, with real commits, where a rolled-back transaction had to refuse.

    The second run is one for the hooks of others, too: so a time limit begins anew.
    """
    if RUNS in item.stash:
        item.stash[RUNS].append(runtestprotocol(item, log=False, nextitem=nextitem))
        return True
    if is_run_again_by_a_plugin(item):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in reports_of(item, nextitem=nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def reports_of(item: pytest.Item, *, nextitem: pytest.Item | None, **_: object) -> list[Any]:
    """Run a test, and again where it has to be; return the reports of its last run."""
    item.stash[RUNS] = []
    item.stash[RUNS].append(runtestprotocol(item, log=False, nextitem=nextitem))
    if refused := why_again(item):
        if isinstance(item, pytest.Function) and item.cls:
            vars(item.instance).clear()  # pytest makes one for both runs
        item.ihook.pytest_runtest_protocol(item=item, nextitem=nextitem)
        for failed in [report for report in item.stash[RUNS][-1] if report.failed][:1]:
            failed.sections.insert(0, ("Refused at first, without real commits", refused + TWICE))
    reports: list[Any] = item.stash[RUNS][-1]
    del item.stash[RUNS]
    return reports


def pytest_configure(config: pytest.Config) -> None:
    """Have the workers of pytest-zygote run tests again, too: they go past the hook for that."""
    if zygote := config.pluginmanager.get_plugin("zygote"):
        zygote.runtestprotocol = reports_of


def why_again(item: pytest.Item) -> str:
    """Return what a test was refused that real commits can do, where it may run again."""
    record, cls = item.stash.get(RECORD, running()), getattr(item, "cls", None)
    is_final = item.config.getoption("usepdb", default=None) or refusals_fail(item.config)
    is_final = is_final or is_run_again_by_a_plugin(item)
    # What subtests of a first run have reported is told already, and stays.
    has_subtests = "subtests" in getattr(item, "fixturenames", ()) or hasattr(cls, "subTest")
    if record.real_commits or is_final or has_subtests:
        return ""
    return next(iter(record.texts(RETRY)), "")


def is_run_again_by_a_plugin(item: pytest.Item) -> bool:
    """Tell whether pytest-rerunfailures, or flaky, runs a failed test again."""
    plugins = filter(item.config.pluginmanager.has_plugin, ("rerunfailures", "flaky"))
    is_marked = item.get_closest_marker("flaky") is not None
    return reruns_of_all(item.config) > 0 or (is_marked and any(plugins))


@functools.cache
def reruns_of_all(config: pytest.Config) -> int:
    """Return how often pytest-rerunfailures runs each failed test again."""
    counts = [config.getoption(name, default=None) for name in ("force_reruns", "reruns")]
    with suppress(ValueError):  # the plugin is not there, or too old for it
        counts.append(config.getini("reruns"))
    return int(next((count for count in counts if count not in (None, "")), 0))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Show what a test was refused, and send its record with the report of its teardown."""
    if call.excinfo and isinstance(call.excinfo.value, Refusal) and why_again(item):
        # Nobody sees it, and pytest would parse each file of SQLAlchemy that is in the traceback.
        call.excinfo.value.pytrace = False
    report: pytest.TestReport = yield
    record = item.stash.get(RECORD, running())
    if call.excinfo and isinstance(error := call.excinfo.value, SetUpError):
        item.session.shouldfail = "the set-up is wrong"
        report.longrepr = f"{WRONG}{error}"
    if report.failed and "ScopeMismatch" in report.longreprtext:
        report.sections.insert(0, ("What to do about the scope", SCOPE))
    refused = [f"Refused: {text}" for text in record.texts(REFUSED, RETRY)]
    if refused and call.excinfo and call.excinfo.errisinstance(CancelledError):
        report.longrepr = f"{refused[0]}\nIt was refused in a task that the test was waiting for."
    record.outcomes[call.when] = report.outcome  # the last of a phase; subtests report before
    if RUNS in item.stash and call.when != "teardown" and report.failed and not why_again(item):
        stop_after_failures(item.session)
    if call.when == "teardown":
        if refused and {*record.outcomes.values()} == {"passed"}:  # by gather(), for instance
            report.outcome = "failed"
            report.longrepr = f"{refused[0]}\nThe test has swallowed this, and passed."
        if ends := record.texts(ENDS_THE_RUN):
            report.outcome, report.longrepr = "failed", f"{ends[0]}. The run ends here."
            item.session.shouldfail = ends[0]
        setattr(report, PREFIX, vars(record))
    if report.failed and refused and refused[0] not in report.longreprtext:  # it is buried
        report.sections.insert(0, ("What the test was refused", refused[0]))
    return report


def stop_after_failures(session: pytest.Session) -> None:
    """End the fixtures of the run with this test where -x or --maxfail ends the run after it.

    pytest does so when it is told of the failure; of ours it is told after the end of the test, and
    an error of a session fixture would then be a traceback without a summary.
    """
    most = session.config.getoption("maxfail")
    if most and session.testsfailed + 1 >= most:
        session.shouldfail = f"stopping after {most} failures"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Refuse a wrong set-up with one message, also where each worker has found it."""
    has_run_elsewhere = not running().outcomes
    if has_run_elsewhere and report.failed and WRONG in report.longreprtext:
        raise SetUpError(report.longreprtext.partition(WRONG)[2])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was special about the tests' databases."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    told = {each.nodeid: getattr(each, PREFIX) for each in reports if hasattr(each, PREFIX)}
    if not told:
        return
    red = {each.nodeid for each in reports if getattr(each, "failed", False)}
    for line in about_databases(told, red):
        terminalreporter.write_line(line)
    if any(not told[test]["real_commits"] for test in red if test in told):
        hint = "To see whether the failed tests pass with real commits: pytest --lf --real-commits"
        terminalreporter.write_line(hint)


def about_databases(told: dict[str, dict[str, Any]], red: set[str]) -> Iterator[str]:
    """Yield what the report says of the tests' databases: each distinct thing once."""
    passed = {test: record for test, record in told.items() if test not in red}
    again = {test: it["first_refusal"] for test, it in passed.items() if it["first_refusal"]}
    notes: dict[tuple[str, str], list[str]] = {}
    for test, record in told.items():
        for kind, text in record["notes"]:
            notes.setdefault((REFUSED if kind == RETRY else kind, text), []).append(test)
    counts = Counter(kind for (kind, _), tests in notes.items() for _ in tests)
    real = sum(record["real_commits"] for record in told.values())
    cloned, refused = counts[CLONED], counts[REFUSED]
    yield f"database: {real} tests with real commits, {cloned} cloned anew, {refused} refused"
    yield from to_paste(again, len(told))
    for (kind, text), tests in notes.items():
        yield f"{kind}, {len(tests)} x: {text} (first in {tests[0]})"


def to_paste(again: dict[str, str], ran: int) -> Iterator[str]:
    """Yield what to write so that the tests that ran again start with real commits."""
    if not again:
        return
    reasons = dict.fromkeys(again.values())
    if len(again) >= MANY and len(again) > ran / 3:
        yield f"{len(again)} of {ran} tests ran again: isolate(..., real_commits=True) saves that:"
        yield from (f"  {reason}" for reason in reasons)
        return
    yield f"{len(again)} tests ran again. With these lines in isolate(...) they run once:"
    yield "    real_commits=["
    for reason in reasons:
        yield f"        # {' '.join(reason.split())}"
        yield from (
            f"        {dumps(test, ensure_ascii=False)},"
            for test, text in again.items()
            if text == reason
        )
    yield "    ],"
