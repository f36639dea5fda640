"""A pytest plugin that writes what each test cost, for the comparison to read.

It needs nothing but pytest and SQLAlchemy, so that it runs in any project's environment. Each line
of the file that RECORDER_FILE names is one JSON object: first the number of tests, then a test
each, last the counters.
"""

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

DDL = re.compile(r"\s*(CREATE|DROP|ALTER|TRUNCATE)\b", re.IGNORECASE)


class Recorder:
    """Counts in every process, and writes in the one that reports."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        """Start counting; `path` is written to by the controller, or by the only process."""
        self.config = config
        self.path = path
        self.is_worker = hasattr(config, "workerinput")
        self.counters: Counter[str] = Counter()
        self.seconds: dict[str, dict[str, float]] = {}
        event.listen(Engine, "connect", self._count_connection)
        event.listen(Engine, "before_cursor_execute", self._count_ddl)

    def _count_connection(self, *_: object) -> None:
        self.counters["connections"] += 1

    def _count_ddl(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if DDL.match(statement):
            self.counters["ddl"] += 1

    def _write(self, line: dict[str, object]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write how many tests there are to come."""
        if session.items and not self.is_worker:
            self._write({"tests": len(session.items)})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a test's outcome, with the seconds of its three phases, once it is over."""
        phases = self.seconds.setdefault(report.nodeid, {})
        phases[report.when or "call"] = report.duration
        if report.outcome != "passed":
            phases["failed"] = 1
        if report.when == "teardown" and not self.is_worker:
            self._write({"test": report.nodeid, **self.seconds.pop(report.nodeid)})

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:  # xdist may not be installed
        """Add what a worker counted."""
        self.counters.update(getattr(node, "workeroutput", {}).get("recorder", {}))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand the counters to the controller, or write them as the last line."""
        if self.is_worker:
            session.config.workeroutput["recorder"] = dict(self.counters)  # type: ignore[attr-defined]
        else:
            session.config.add_cleanup(lambda: self._write({"counters": dict(self.counters)}))


def pytest_configure(config: pytest.Config) -> None:
    """Record this run."""
    config.pluginmanager.register(Recorder(config, Path(os.environ["RECORDER_FILE"])))
