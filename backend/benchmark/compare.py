"""Run the same tests under the old conftest and the new one, and report the difference honestly.

`python -m benchmark.compare --help` lists the options; `make compare` runs it on this repository.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
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
from rich.table import Table

from benchmark.server import server_url

BACKEND = Path(__file__).resolve().parent.parent
PLUGINS = BACKEND / "benchmark" / "plugins"
PACKAGES = ("pytest", "pytest-asyncio", "pytest-xdist", "sqlalchemy", "asyncpg", "fastapi", "httpx")


@dataclass(frozen=True)
class Strategy:
    """A way to run the tests: under which conftest, on how many workers."""

    name: str
    conftest: Path
    workers: int = 0


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


def importable(conftest: Path) -> tuple[str, Path]:
    """Return the dotted name of a conftest, and the folder from which that name is imported."""
    parts, folder = [conftest.stem], conftest.resolve().parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts), folder


def command(strategy: Strategy, tests: Path, python: Path) -> list[str]:
    """Return the pytest command of a strategy."""
    name, _ = importable(strategy.conftest)
    workers = ["-n", str(strategy.workers)] if strategy.workers else []
    plugins = ["--noconftest", "-p", name, "-p", "conftest_recorder"]
    options = ["-q", "--no-header", str(tests.resolve())]
    return [str(python.absolute()), "-m", "pytest", *plugins, *workers, *options]


def environment(strategy: Strategy, record: Path) -> dict[str, str]:
    """Return the variables of a strategy's process."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [path for path in given if path and Path(path).resolve() != BACKEND]
    paths = [str(importable(strategy.conftest)[1]), str(PLUGINS), *others]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "RECORDER_FILE": str(record),
    }


def root(tests: Path) -> Path:
    """Return the folder from which a project runs its tests: the one of its pytest settings."""
    above = tests.resolve().parents
    settings = ("pyproject.toml", "pytest.ini", "setup.cfg", "tox.ini")
    return next((each for each in above if any((each / n).exists() for n in settings)), above[0])


def run(strategy: Strategy, tests: Path, python: Path, progress: Progress, task: TaskID) -> Run:
    """Run the tests once under a strategy, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        record, output = Path(folder, "record.jsonl"), Path(folder, "output.txt")
        record.touch()
        started = time.perf_counter()
        with output.open("w") as stdout:
            process = subprocess.Popen(  # noqa: S603 - our own command
                command(strategy, tests, python),
                cwd=root(tests),
                env=environment(strategy, record),
                stdout=stdout,
                stderr=subprocess.STDOUT,
            )
            try:
                while process.poll() is None:
                    lines = record.read_text().count('"test"')
                    progress.update(task, completed=lines)
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


def summary(runs: dict[Strategy, list[Run]]) -> dict[str, Any]:
    """Return the figures of all finished runs, as they go into the JSON file."""
    strategies = {s.name: figures(s, results) for s, results in runs.items() if results}
    before, after = strategies.get("before"), strategies.get("after")
    return {
        "tests": max((figure["passed"] for figure in strategies.values()), default=0),
        "ratio": round(before["median_s"] / after["median_s"], 2) if before and after else None,
        "strategies": strategies,
        "machine": {
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
        },
        "versions": {name: version(name) for name in PACKAGES},
    }


def figures(strategy: Strategy, results: list[Run]) -> dict[str, Any]:
    """Return the figures of one strategy."""
    walls = [result.wall_s for result in results]
    last = results[-1]
    shares = [result.fixtures_s / (result.fixtures_s + result.tests_s) for result in results]
    return {
        "passed": len(last.passed),
        "workers": strategy.workers or 1,
        "wall_s": [round(wall, 3) for wall in walls],
        "median_s": round(median(walls), 3),
        "ms_per_test": round(median(walls) * 1000 / len(last.passed), 2),
        "fixture_share": round(median(shares), 3),
        "ddl": last.counters.get("ddl", 0),
        "connections": last.counters.get("connections", 0),
    }


def table(result: dict[str, Any]) -> Table:
    """Return the figures as a table for the terminal."""
    made = Table(title=f"{result['tests']} tests, the same ones under each conftest")
    made.add_column("", no_wrap=True)
    for name in ("median s", "min", "max", "faster", "ms/test", "set-up", "DDL", "connects"):
        made.add_column(name, justify="right", no_wrap=True)
    before = result["strategies"].get("before")
    for name, row in result["strategies"].items():
        made.add_row(
            name if row["workers"] == 1 else f"{name} -n {row['workers']}",
            f"{row['median_s']:.2f}",
            f"{min(row['wall_s']):.2f}",
            f"{max(row['wall_s']):.2f}",
            f"{before['median_s'] / row['median_s']:.1f} x" if before else "",
            f"{row['ms_per_test']:.1f}",
            f"{row['fixture_share']:.0%}",
            str(row["ddl"]),
            str(row["connections"]),
        )
    return made


def show(result: dict[str, Any], console: Console) -> None:
    """Print the table and what it does not say by itself."""
    console.print(table(result))
    machine = result["machine"]
    console.print(f"Python {machine['python']}, {machine['cpus']} CPUs, {machine['system']}")
    console.print(", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    after, parallel = (result["strategies"].get(name) for name in ("after", "parallel"))
    if after and parallel and parallel["median_s"] > after["median_s"]:
        console.print(
            "Parallel loses here: each worker has to start Python and import the application, "
            f"which costs more than it saves on {result['tests']} tests."
        )


def compare(
    strategies: list[Strategy], given: argparse.Namespace, console: Console
) -> tuple[dict[Strategy, list[Run]], str, int]:
    """Run all strategies in interleaved rounds; return the runs, and how and why they ended."""
    runs: dict[Strategy, list[Run]] = {strategy: [] for strategy in strategies}
    wanted: set[str] | None = None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        try:
            for number in range(1, given.rounds + 1):
                for strategy in strategies:
                    title = f"round {number}/{given.rounds}: {strategy.name}"
                    task = progress.add_task(title, total=len(wanted) if wanted else None)
                    result = run(strategy, given.tests, given.python, progress, task)
                    check(strategy, result, wanted)
                    wanted = result.passed
                    runs[strategy].append(result)
                    progress.remove_task(task)
        except KeyboardInterrupt:
            return runs, "Interrupted: the figures are those of the runs that had finished.", 130
        except StrategyFailedError as error:
            return runs, str(error), 1
    return runs, "", 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="compare", description=__doc__)
    parser.add_argument("tests", nargs="?", type=Path, default=BACKEND / "tests")
    parser.add_argument("--before", type=Path, default=BACKEND / "benchmark" / "before.py")
    parser.add_argument("--after", type=Path, default=BACKEND / "tests" / "conftest.py")
    parser.add_argument(
        "--python", type=Path, default=sys.executable, help="the interpreter that has the project"
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each strategy (3)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2, help="of parallel")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    given = parser.parse_args()
    for path in (given.tests, given.before, given.after, given.python):
        if not path.exists():
            parser.error(f"{path} does not exist")
    if given.rounds < 1 or given.workers < 1:
        parser.error("--rounds and --workers take 1 or more")
    return given


def main() -> int:
    """Compare, print and save; return 0 only if every strategy passed the very same tests."""
    given = arguments()
    console = Console(width=None if sys.stdout.isatty() else 100)
    # One server for all runs, started before the first, so that no strategy pays for its start.
    url = server_url()
    os.environ["TEST_DATABASE_URL"] = url.render_as_string(hide_password=False)
    strategies = [
        Strategy("before", given.before),
        Strategy("after", given.after),
        Strategy("parallel", given.after, given.workers),
    ]
    runs, problem, status = compare(strategies, given, console)
    if any(runs.values()):
        result = summary(runs)
        show(result, console)
        if given.json:
            given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if problem:
        console.print(problem, style="red", markup=False)
    return status


if __name__ == "__main__":
    sys.exit(main())
