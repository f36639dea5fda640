"""Run the same tests under several strategies, in interleaved rounds, and keep what each cost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

BACKEND = Path(__file__).resolve().parent.parent
TESTS = BACKEND / "tests"
PLUGINS = BACKEND / "benchmark" / "plugins"
ONE_PROCESS = "one process"
PATIENCE = 10  # seconds for an interrupted run to end by itself


@dataclass(frozen=True)
class Strategy:
    """A way to run the tests: with which plugins in the place of the conftest, on how many workers.

    A plugin's fixtures go before those of the same name in the plugins to its left. Options are
    pytest's. Without `tests`, pytest runs what the settings of the folder say. Workers are
    pytest-xdist's or, where they are forked, pytest-zygote's.
    """

    name: str
    plugins: tuple[Path, ...] = ()
    workers: int = 0
    forked: bool = False
    options: tuple[str, ...] = ("--noconftest",)
    python: Path = Path(sys.executable)
    tests: Path | None = TESTS
    folder: Path = BACKEND.parent
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def way(self) -> str:
        """The option for the workers, such as `-n 2`."""
        option = "--workers" if self.forked else "-n"
        return f"{option} {self.workers}" if self.workers else ONE_PROCESS


@dataclass
class Case:
    """What became of a test, in the words of pytest's summary, and what it cost."""

    outcome: str
    fixtures_s: float
    call_s: float
    why: str = ""


@dataclass
class Run:
    """What one run of the suite did and cost."""

    wall_s: float
    exit_code: int
    output: str
    collected: int = 0
    workers: int = 0
    tests: dict[str, Case] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    error: str = ""  # why the first file of those that could not be collected could not

    @property
    def passed(self) -> set[str]:
        """The tests that passed."""
        return {name for name, test in self.tests.items() if test.outcome == "passed"}

    def end(self, lines: int) -> str:
        """Return the last lines of the output."""
        return "\n".join(self.output.rstrip().splitlines()[-lines:])

    def message(self) -> str:
        """Return what was first to fail, whole, and the last line; else the end of the output."""
        first = next((test.why for test in self.tests.values() if test.why), self.error)
        return f"{first}\n{self.end(1)}" if first else self.end(20)


class StrategyFailedError(Exception):
    """A strategy did not pass the tests that it was given, so its time means nothing."""


def importable(plugin: Path) -> tuple[str, Path]:
    """Return the dotted name of a plugin, and the folder from which that name is imported."""
    parts, folder = [plugin.stem], plugin.resolve().parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts), folder


def command(strategy: Strategy) -> list[str]:
    """Return the pytest command of a strategy."""
    names = [*(importable(plugin)[0] for plugin in strategy.plugins), "conftest_recorder"]
    plugins = [f"-p{name}" for name in names]
    workers = strategy.way.split() if strategy.workers else []
    tests = [str(strategy.tests.resolve())] if strategy.tests else []
    options = [*plugins, *strategy.options, *workers]
    return [str(strategy.python.absolute()), "-m", "pytest", *options, "-q", "--no-header", *tests]


def environment(strategy: Strategy, record: Path) -> dict[str, str]:
    """Return the variables of a strategy's process: ours, as if its interpreter were activated."""
    given = {**os.environ, **dict(strategy.variables)}
    folders = dict.fromkeys(str(importable(plugin)[1]) for plugin in strategy.plugins)
    own = given.get("PYTHONPATH", "").split(os.pathsep)
    others = [path for path in own if path and Path(path).resolve() != BACKEND]
    return {
        **given,
        "PATH": os.pathsep.join([str(strategy.python.absolute().parent), given.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join([*folders, str(PLUGINS), *others]),
        "RECORDER_FILE": str(record),
    }


def run(strategy: Strategy, progress: Progress, task: TaskID) -> Run:
    """Run the tests once under a strategy, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        record, output = Path(folder, "record.jsonl"), Path(folder, "output.txt")
        record.touch()
        started = time.perf_counter()
        with output.open("w") as stdout, record.open(encoding="utf-8") as so_far:
            process = subprocess.Popen(  # noqa: S603 - our own command
                command(strategy),
                cwd=strategy.folder,
                env=environment(strategy, record),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches it once, from here
            )
            try:
                while process.poll() is None:
                    progress.advance(task, so_far.read().count('"test"'))
                    time.sleep(0.02)
            except BaseException:
                end(process)
                raise
        result = Run(time.perf_counter() - started, process.returncode, output.read_text())
        read_record(result, record)
    progress.update(task, completed=len(result.tests))
    return result


def end(process: subprocess.Popen[bytes]) -> None:
    """End a run as Ctrl-C would, so that its fixtures clean up, or by force if it goes on."""
    for _ in range(2):  # the first one is lost where it arrives while an object is finalized
        with suppress(ValueError):  # Windows sends no such signal to one process
            process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    process.kill()
    process.wait()


def read_record(result: Run, record: Path) -> None:
    """Add to a run what the recorder wrote of it."""
    for line in map(json.loads, record.read_text(encoding="utf-8").splitlines()):
        if "test" in line:
            fixtures_s = line.get("setup", 0) + line.get("teardown", 0)
            test = Case(line["outcome"], fixtures_s, line.get("call", 0), line.get("why", ""))
            result.tests[line["test"]] = test
        result.error = result.error or line.get("error", "")
        result.collected = line.get("tests", result.collected)
        result.workers = line.get("workers", result.workers)
        result.counters.update(line.get("counters", {}))


Check = Callable[[Strategy, Run, set[str] | None], None]


def check(strategy: Strategy, result: Run, wanted: set[str] | None) -> None:
    """Refuse a run that failed, or that did not pass exactly the wanted tests."""
    if result.exit_code or not result.passed or len(result.passed) < len(result.tests):
        message = f"{strategy.name} failed with exit code {result.exit_code}:\n{result.end(40)}"
        raise StrategyFailedError(message)
    if wanted is not None and result.passed != wanted:
        missing = sorted(wanted - result.passed)
        added = sorted(result.passed - wanted)
        message = f"{strategy.name} did not run the same tests; missing: {missing}; added: {added}"
        raise StrategyFailedError(message)


@dataclass
class Rounds:
    """The runs of all strategies, and why some of them have no figures."""

    runs: dict[Strategy, list[Run]]
    problems: dict[Strategy, str] = field(default_factory=dict)
    interrupted: bool = False

    def figures(self) -> dict[str, dict[str, Any]]:
        """Return the figures of each strategy that passed all its runs."""
        return {
            strategy.name: figures(strategy, runs)
            for strategy, runs in self.runs.items()
            if runs and strategy not in self.problems
        }


def bar(console: Console) -> Progress:
    """Return a live bar for runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def rounds(
    strategies: Sequence[Strategy], count: int, console: Console, accepted: Check = check
) -> Rounds:
    """Run the strategies in turn, `count` times; one that fails is not run again.

    The tests that the first of them passes are those that `check` wants of all others.
    """
    done = Rounds({strategy: [] for strategy in strategies})
    wanted: set[str] | None = None
    with bar(console) as progress:
        try:
            for number, strategy in schedule(done, count):
                title = f"round {number}/{count}: {strategy.name}{time_left(done, count)}"
                task = progress.add_task(title, total=len(wanted) if wanted else None)
                result = run(strategy, progress, task)
                progress.remove_task(task)
                try:
                    accepted(strategy, result, wanted)
                except StrategyFailedError as error:
                    done.problems[strategy] = str(error)
                else:
                    wanted = result.passed
                    done.runs[strategy].append(result)
        except KeyboardInterrupt:
            done.interrupted = True
    return done


def schedule(done: Rounds, count: int) -> Iterator[tuple[int, Strategy]]:
    """Yield what to run next: every strategy that has not failed, round after round."""
    for number in range(1, count + 1):
        for strategy in done.runs:
            if strategy not in done.problems:
                yield number, strategy


def time_left(done: Rounds, count: int) -> str:
    """Say how long the runs to come will take, once every strategy has run."""
    left = {s: count - len(runs) for s, runs in done.runs.items() if s not in done.problems}
    if not all(done.runs[strategy] for strategy in left):
        return ""
    seconds = sum(n * median(run.wall_s for run in done.runs[s]) for s, n in left.items())
    return f", {seconds:.0f} s left"


def figures(strategy: Strategy, runs: list[Run]) -> dict[str, Any]:
    """Return the figures of one strategy."""
    walls = [run.wall_s for run in runs]
    ran = sum(test.outcome != "skipped" for test in runs[-1].tests.values())
    fixtures = [sum(test.fixtures_s for test in run.tests.values()) for run in runs]
    calls = [sum(test.call_s for test in run.tests.values()) for run in runs]
    shares = [setup / (setup + call) for setup, call in zip(fixtures, calls, strict=True)]
    return {
        "passed": len(runs[-1].passed),
        "way": strategy.way,
        "wall_s": [round(wall, 3) for wall in walls],
        "median_s": round(median(walls), 3),
        "ms_per_test": round(median(walls) * 1000 / ran, 2),
        "fixture_share": round(median(shares), 3),
        "fixtures_ms": round(median(fixtures) * 1000 / ran, 2),
        "ddl": runs[-1].counters.get("ddl"),
        "connections": runs[-1].counters.get("connections"),
    }


def lines(walls: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return for each way to run tests what a run costs before and for each test.

    `pays_from` is the number of tests from which it beats one process, or None if it never does.
    """
    found: dict[str, dict[str, float | None]] = {}
    serial = None
    for way in dict.fromkeys(row["way"] for row in walls):
        points = [(row["tests"], row["wall_s"]) for row in walls if row["way"] == way]
        slope, start = linear_regression(*zip(*points, strict=True))
        serial = serial or (slope, start)
        gained = serial[0] - slope
        pays_from = (start - serial[1]) / gained if gained > 0 else None
        found[way] = {
            "start_s": start,
            "ms_per_test": slope * 1000,
            "pays_from": pays_from,
        }
    return found
