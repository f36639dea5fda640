"""A pytest plugin that writes what each test cost, for the comparison to read.

It needs nothing but pytest, so that it runs in any project's environment; what it counts of the
database is there where SQLAlchemy is. Each line of the file that RECORDER_FILE names is one JSON
object: first the number of tests, then a test each, last the counters.
"""

import json
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

try:
    from sqlalchemy import Engine, event
except ImportError:  # the project has another way to its database, or has none
    event = None  # type: ignore[assignment]

DDL = re.compile(r"\s*(CREATE|DROP|ALTER|TRUNCATE)\b", re.IGNORECASE)


class Recorder:
    """Counts in every process, and writes in the one that reports."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        """Start counting; `path` is written to by the controller, or by the only process."""
        self.config = config
        self.path = path
        self.is_worker = hasattr(config, "workerinput")
        self.counters: defaultdict[int, Counter[str]] = defaultdict(Counter)  # of each process
        self.tests: dict[str, dict[str, Any]] = {}
        if event is not None:
            event.listen(Engine, "connect", self._count_connection)
            event.listen(Engine, "before_cursor_execute", self._count_ddl)

    def _count_connection(self, *_: object) -> None:
        self.counters[os.getpid()]["connections"] += 1

    def _count_ddl(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if DDL.match(statement):
            self.counters[os.getpid()]["ddl"] += 1

    def _write(self, line: dict[str, object]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write how many tests there are to come, and for how many workers."""
        if session.items and not self.is_worker:
            workers = getattr(self.config.option, "numprocesses", None) or 0
            self._write({"tests": len(session.items), "workers": workers})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Write why a file cannot be collected."""
        if report.failed and not self.is_worker:
            self._write({"error": str(report.longrepr)})

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        """Send what this process has counted so far, with each report."""
        report = yield
        report.recorder = [os.getpid(), dict(self.counters[os.getpid()])]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a test's outcome, with the seconds of its three phases, once it is over."""
        if report.when == "setup":
            self.tests[report.nodeid] = {"test": report.nodeid}  # anew, where a test is run again
        test = self.tests.setdefault(report.nodeid, {"test": report.nodeid})
        test[report.when or "call"] = report.duration
        pid, counted = getattr(report, "recorder", (os.getpid(), {}))
        if pid != os.getpid():
            self.counters[pid] = Counter(counted)
        if report.when != "teardown" or report.failed:
            test["outcome"] = outcome(report)
        if report.failed:
            test["why"] = why(report)
        if report.when == "teardown" and not self.is_worker:
            self._write(self.tests.pop(report.nodeid) | {"end": time.monotonic()})

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the counters of all processes as the last line."""
        if not self.is_worker:
            session.config.add_cleanup(self._write_counters)

    def _write_counters(self) -> None:
        if event is not None:
            names = ("connections", "ddl")
            total = {name: sum(each[name] for each in self.counters.values()) for name in names}
            self._write({"counters": total})


def outcome(report: pytest.TestReport) -> str:
    """Return what became of a test, in the words of pytest's summary."""
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.failed and report.when != "call":
        return "error"
    if report.failed and str(report.longrepr).startswith("[XPASS(strict)]"):
        return "xpassed"
    return report.outcome


def why(report: pytest.TestReport) -> str:
    """Return what a test has failed with, without its traceback."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr)


def pytest_configure(config: pytest.Config) -> None:
    """Record this run."""
    config.pluginmanager.register(Recorder(config, Path(os.environ["RECORDER_FILE"])))
