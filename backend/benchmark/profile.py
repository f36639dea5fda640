"""Say where the time of a test run goes, and what to do about the largest parts.

Alone, it profiles this repository's suite. With PROJECT, the folder in which you type pytest, it
profiles your own pytest, and leaves nothing there. What follows `--` goes to pytest. Calls are
timed one by one, which costs what the last line says.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmark import theirs
from benchmark.interpreter import NoInterpreterError
from benchmark.runs import PLUGINS, Strategy, bar, run

PROFILER = PLUGINS / "conftest_profiler.py"
ADVICE = {
    "password hashing": "hash at the cheapest parameters in tests",
    "DDL": "create the schema once, in a template database",
    "creating databases": "let fewer tests need a new database",
    "connecting": "keep one connection for all tests",
    "sleeping": "wait for the thing itself, or let the test pass the time",
    "requests to other servers": "answer them in the test",
    "start-up": "import less, or later",
    "SQL": "arrange less, and load what belongs together at once",
    "fixtures": "use fewer fixtures, and give the slow ones a wider scope",
    "requests to the app": "look at what runs for each request",
}
WORTH_SAYING = 0.10  # of the run
MOST = 3  # pieces of advice


class Cost(NamedTuple):
    """What one category took of a run."""

    category: str
    calls: int
    seconds: float
    share: float


def costs(profile: dict[str, Any]) -> list[Cost]:
    """Return the costs of a recorded profile, the largest first."""
    total = sum(cost["seconds"] for cost in profile["costs"].values())
    found = [
        Cost(name, cost["calls"], cost["seconds"], cost["seconds"] / total)
        for name, cost in profile["costs"].items()
    ]
    return sorted(found, key=lambda cost: cost.seconds, reverse=True)


def advice(found: list[Cost]) -> list[str]:
    """Return a line on each of the few costs that are worth a change."""
    worth = [cost for cost in found if cost.share >= WORTH_SAYING and cost.category in ADVICE]
    return [
        f"{cost.category}, {cost.share:.0%}: {ADVICE[cost.category]} "
        f"(docs/slow-tests.md#{cost.category.replace(' ', '-').lower()})"
        for cost in worth[:MOST]
    ]


def profile(strategy: Strategy, console: Console) -> dict[str, Any]:
    """Run a strategy once under the profiler and return what it wrote."""
    with tempfile.TemporaryDirectory() as folder, bar(console) as progress:
        record = Path(folder, "profile.json")
        now = ("PROFILE_FILE", str(record)), ("PROFILE_STARTED", str(time.time()))
        profiled = replace(
            strategy,
            plugins=(*strategy.plugins, PROFILER),
            variables=(*strategy.variables, *now),
        )
        result = run(profiled, progress, progress.add_task("profile", total=None))
        theirs.usable(profiled, result)
        written: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return written


def show(profiled: dict[str, Any], console: Console) -> None:
    """Print what to fix next, and where all of the time went."""
    found = costs(profiled)
    table = Table(title=f"Where {profiled['wall_s']:.1f} s go")
    table.add_column("")
    for name in ("calls", "seconds", "share"):
        table.add_column(name, justify="right")
    for cost in found:
        table.add_row(cost.category, f"{cost.calls}", f"{cost.seconds:.2f}", f"{cost.share:.0%}")
    console.print(table)
    console.print(f"Timing the calls took {profiled['overhead_s']:.2f} s of it.")
    show_advice(profiled, console)


def show_advice(profiled: dict[str, Any], console: Console) -> None:
    """Print what to fix next."""
    console.print("\nWhat to fix next, by one run under the profiler:")
    for number, line in enumerate(advice(costs(profiled)), 1):
        console.print(f"{number}. {line}", markup=False, highlight=False)


def suite(given: argparse.Namespace, folder: Path, console: Console) -> Strategy:
    """Return the way to run the suite that is to be profiled, once it is known to start."""
    if not given.project:
        return Strategy("profile", options=tuple(given.options))
    python = theirs.interpreter(given.project, given.python)
    tree = theirs.copied(given.project, folder)
    pytest = theirs.Pytest(python, given.options, folder / "bytecode")
    strategy = pytest.strategy("profile", tree, [tree.origin])
    return theirs.collect(strategy, tree, console)


def main() -> int:
    """Profile and print."""
    arguments, options = theirs.split(sys.argv[1:])
    parser = argparse.ArgumentParser(
        prog="profile", description=__doc__, usage="profile [options] [PROJECT] [-- PYTEST OPTIONS]"
    )
    parser.add_argument("project", nargs="?", type=Path, metavar="PROJECT")
    parser.add_argument("--python", type=Path, help="PROJECT's interpreter, else that of its .venv")
    given = parser.parse_args(arguments, argparse.Namespace(options=options))
    for path in filter(None, (given.project, given.python)):
        if not path.exists():
            parser.error(f"{path} does not exist")
    console = Console(width=None if sys.stdout.isatty() else 100)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job that is cancelled cleans up
    try:
        with tempfile.TemporaryDirectory(prefix="profile-", ignore_cleanup_errors=True) as folder:
            show(profile(suite(given, Path(folder), console), console), console)
    except KeyboardInterrupt:
        return 130
    except (theirs.CannotRunError, NoInterpreterError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
