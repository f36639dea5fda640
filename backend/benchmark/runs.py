"""Run the same tests under several strategies, in interleaved rounds, and keep what each cost."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
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
PACKAGES = ("pytest", "pytest-asyncio", "pytest-xdist", "sqlalchemy", "asyncpg", "fastapi", "httpx")


@dataclass(frozen=True)
class Strategy:
    """A way to run the tests: with which plugins in the place of the conftest, on how many workers.

    A plugin's fixtures go before those of the same name in the plugins to its left.
    """

    name: str
    plugins: tuple[Path, ...]
    workers: int = 0
    options: tuple[str, ...] = ("--noconftest",)
    python: Path = Path(sys.executable)
    tests: Path = TESTS


@dataclass
class Run:
    """What one run of the suite did and cost."""

    wall_s: float
    exit_code: int
    output: str
    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    fixtures_s: float = 0.0
    tests_s: float = 0.0
    counters: dict[str, int] = field(default_factory=dict)


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
    workers = [f"-n{strategy.workers}"] * bool(strategy.workers)
    python, tests = str(strategy.python.absolute()), str(strategy.tests.resolve())
    options = [*plugins, *workers, *strategy.options]
    return [python, "-m", "pytest", *options, "-q", "--no-header", tests]


def environment(strategy: Strategy, record: Path) -> dict[str, str]:
    """Return the variables of a strategy's process."""
    folders = dict.fromkeys(str(importable(plugin)[1]) for plugin in strategy.plugins)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [path for path in given if path and Path(path).resolve() != BACKEND]
    paths = os.pathsep.join([*folders, str(PLUGINS), *others])
    return {**os.environ, "PYTHONPATH": paths, "RECORDER_FILE": str(record)}


def root(tests: Path) -> Path:
    """Return the folder from which a project runs its tests: the one of its pytest settings."""
    above = tests.resolve().parents
    settings = ("pyproject.toml", "pytest.ini", "setup.cfg", "tox.ini")
    return next((each for each in above if any((each / n).exists() for n in settings)), above[0])


def run(strategy: Strategy, progress: Progress, task: TaskID) -> Run:
    """Run the tests once under a strategy, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        record, output = Path(folder, "record.jsonl"), Path(folder, "output.txt")
        record.touch()
        started = time.perf_counter()
        with output.open("w") as stdout:
            process = subprocess.Popen(  # noqa: S603 - our own command
                command(strategy),
                cwd=root(strategy.tests),
                env=environment(strategy, record),
                stdout=stdout,
                stderr=subprocess.STDOUT,
            )
            try:
                while process.poll() is None:
                    progress.update(task, completed=record.read_text().count('"test"'))
                    time.sleep(0.02)
            except BaseException:
                process.terminate()
                process.wait()
                raise
        wall = time.perf_counter() - started
        result = Run(wall, process.returncode, output.read_text())
        read_record(result, record)
    progress.update(task, completed=len(result.passed) + len(result.failed))
    return result


def read_record(result: Run, record: Path) -> None:
    """Add to a run what the recorder wrote of it."""
    for line in map(json.loads, record.read_text().splitlines()):
        if "test" in line:
            (result.failed if "failed" in line else result.passed).add(line["test"])
            result.fixtures_s += line.get("setup", 0) + line.get("teardown", 0)
            result.tests_s += line.get("call", 0)
        result.counters.update(line.get("counters", {}))


def check(strategy: Strategy, result: Run, wanted: set[str] | None) -> None:
    """Refuse a run that failed, or that did not pass exactly the wanted tests."""
    if result.exit_code or result.failed or not result.passed:
        tail = "\n".join(result.output.splitlines()[-40:])
        message = f"{strategy.name} failed with exit code {result.exit_code}:\n{tail}"
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


def rounds(strategies: Sequence[Strategy], count: int, console: Console) -> Rounds:
    """Run the strategies in turn, `count` times; one that fails is not run again.

    The tests that the first of them passes are those that all others have to pass.
    """
    done = Rounds({strategy: [] for strategy in strategies})
    wanted: set[str] | None = None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        try:
            for number, strategy in schedule(done, count):
                title = f"round {number}/{count}: {strategy.name}{time_left(done, count)}"
                task = progress.add_task(title, total=len(wanted) if wanted else None)
                result = run(strategy, progress, task)
                progress.remove_task(task)
                try:
                    check(strategy, result, wanted)
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
    tests, counters = len(runs[-1].passed), runs[-1].counters
    shares = [run.fixtures_s / (run.fixtures_s + run.tests_s) for run in runs]
    return {
        "passed": tests,
        "workers": strategy.workers or 1,
        "wall_s": [round(wall, 3) for wall in walls],
        "median_s": round(median(walls), 3),
        "ms_per_test": round(median(walls) * 1000 / tests, 2),
        "fixture_share": round(median(shares), 3),
        "fixtures_ms": round(median(run.fixtures_s for run in runs) * 1000 / tests, 2),
        "ddl": counters.get("ddl", 0),
        "connections": counters.get("connections", 0),
    }


def lines(walls: list[dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """Return for each number of workers what a run costs before and for each test.

    `pays_from` is the number of tests from which it beats one process, or None if it never does.
    """
    found: dict[str, dict[str, float | None]] = {}
    serial = None
    for workers in sorted({row["workers"] for row in walls}):
        points = [(row["tests"], row["wall_s"]) for row in walls if row["workers"] == workers]
        slope, start = linear_regression(*zip(*points, strict=True))
        serial = serial or (slope, start)
        gained = serial[0] - slope
        pays_from = (start - serial[1]) / gained if gained > 0 else None
        found[f"{workers:.0f}"] = {
            "start_s": start,
            "ms_per_test": slope * 1000,
            "pays_from": pays_from,
        }
    return found


def circumstances() -> dict[str, Any]:
    """Return the machine and the versions that the figures hold for."""
    return {
        "machine": {
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
        },
        "versions": {name: version(name) for name in PACKAGES},
    }
