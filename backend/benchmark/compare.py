"""Run the same tests before and after, in turn, and report the difference honestly.

Alone, it runs this repository's suite under the conftest that drops and creates, and under ours.
With PROJECT, the folder in which you type pytest, it runs your own pytest in two trees of your
project. A tree is a revision of its git repository, or a folder as it is. What follows `--` goes
to pytest.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark import sheets, theirs
from benchmark.interpreter import NoInterpreterError, ask, circumstances
from benchmark.outcomes import Sides
from benchmark.profile import profile, show_advice
from benchmark.runs import BACKEND, TESTS, Rounds, Strategy, check, rounds


def say(text: str, console: Console, style: str | None = None) -> None:
    """Print a text whole, as it is."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def reference(workers: int, options: Sequence[str]) -> list[Strategy]:
    """Return the ways to run this repository's suite.

    Another one takes a line: a name, a conftest, and the pytest options that it needs.
    """
    before, after = (BACKEND / "benchmark" / "before.py",), (TESTS / "conftest.py",)
    ways = [
        Strategy("before", before),
        Strategy("after", after),
        Strategy("parallel", after, workers),
        *([Strategy("forked", after, workers, forked=True)] if hasattr(os, "fork") else []),
        Strategy("real commits", after, options=("--noconftest", "--real-commits")),
    ]
    return [replace(way, options=(*way.options, *options)) for way in ways]


@contextmanager
def their_own(given: argparse.Namespace, console: Console) -> Iterator[list[Strategy]]:
    """Return the ways to run somebody's tests, in two trees of their project."""
    say(f"Copying {given.before} and {given.after}; nothing is written into them.", console)
    python = theirs.interpreter(given.project, given.python)
    with tempfile.TemporaryDirectory(prefix="compare-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        trees = {
            "before": theirs.tree(given.project, given.before, folder / "before"),
            "after": theirs.tree(given.project, given.after, folder / "after"),
        }
        theirs.refuse_the_same(given.project, *trees.values())
        for side, tree in trees.items():
            say(f"{side}: {tree.what}", console)
        origins = {theirs.top_of(given.project), *(tree.origin for tree in trees.values())}
        pytest = theirs.Pytest(python, given.options, folder / "bytecode")
        ways = [pytest.strategy(side, tree, origins) for side, tree in trees.items()]
        each = zip(ways, trees.values(), strict=True)
        before, after = (theirs.collect(way, tree, console) for way, tree in each)
        parallel = replace(after, name=theirs.PARALLEL, workers=given.workers)
        is_possible = ask(python)["versions"]["pytest-xdist"] and not after.workers
        yield [before, after, parallel] if is_possible else [before, after]


def summary(done: Rounds, python: Path) -> dict[str, Any]:
    """Return the figures of all finished runs, as they go into the JSON file."""
    strategies = done.figures()
    before, after = strategies.get("before"), strategies.get("after")
    return {
        "tests": max((figure["passed"] for figure in strategies.values()), default=0),
        "ratio": round(before["median_s"] / after["median_s"], 2) if before and after else None,
        "strategies": strategies,
        **circumstances(python),
    }


def sides(done: Rounds) -> list[Sides]:
    """Return what became of the tests on each two sides that are compared."""
    runs = {strategy.name: runs for strategy, runs in done.runs.items() if runs}
    both = (("before", "after"), ("after", "parallel"))
    return [Sides(a, b, runs[a], runs[b]) for a, b in both if a in runs and b in runs]


def show(result: dict[str, Any], console: Console) -> None:
    """Print the table and what it does not say by itself."""
    console.print(sheets.table(sheets.comparison(result)))
    machine = result["machine"]
    console.print(f"Python {machine['python']}, {machine['cpus']} CPUs, {machine['system']}")
    console.print(", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    after, parallel = (result["strategies"].get(name) for name in ("after", "parallel"))
    if after and parallel and parallel["median_s"] > after["median_s"]:
        console.print(
            "Parallel loses here: each worker has to start Python and import the application, "
            f"which costs more than it saves on {result['tests']} tests."
        )


def report(done: Rounds, given: argparse.Namespace, console: Console) -> int:
    """Print and save what the runs have shown; return 0 only if nothing got worse."""
    ways = list(done.runs)
    result = summary(done, ways[0].python)
    found = sides(done) if given.project else []
    if found:
        result["tests"] = len(found[0].compared)
        result["which"] = "those that passed on both sides"
        if others := len(found[0].pairs) - len(found[0].compared):
            result["which"] += f"; the seconds are those of {others} others, too"
        result["differences"] = [each for both in found for each in both.recorded()]
    if result["strategies"]:
        show(result, console)
        if given.json:
            given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for line in (line for both in found for line in both.described()):
        say(line, console)
    for problem in done.problems.values():
        say(problem, console, "red")
    if done.interrupted:
        raise KeyboardInterrupt
    after = next(way for way in ways if way.name == "after")
    if done.runs[after] and after not in done.problems:
        show_advice(profile(after, console), console)
    return 1 if done.problems or any(both.got_worse for both in found) else 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    given, options = theirs.split(sys.argv[1:])
    parser = argparse.ArgumentParser(
        prog="compare", description=__doc__, usage="compare [options] [PROJECT] [-- PYTEST OPTIONS]"
    )
    parser.add_argument("project", nargs="?", type=Path, metavar="PROJECT")
    parser.add_argument("--before", metavar="TREE", help="HEAD where it is not given")
    parser.add_argument("--after", metavar="TREE", help="PROJECT as it is where it is not given")
    parser.add_argument("--python", type=Path, help="PROJECT's interpreter, else that of its .venv")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each strategy (3)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2, help="of parallel")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parsed = parser.parse_args(given, argparse.Namespace(options=options))
    if parsed.rounds < 1 or parsed.workers < 1:
        parser.error("--rounds and --workers take 1 or more")
    if parsed.project is None and (parsed.before or parsed.after or parsed.python):
        parser.error(
            "--before, --after and --python need a PROJECT, the folder of its tests' pytest"
        )
    for path in filter(None, (parsed.project, parsed.python)):
        if not path.exists():
            parser.error(f"{path} does not exist")
    parsed.before = parsed.before or "HEAD"
    parsed.after = parsed.after or str(parsed.project)
    return parsed


def main() -> int:
    """Compare, print and save."""
    given = arguments()
    console = Console(width=None if sys.stdout.isatty() else 100)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job that is cancelled cleans up
    try:
        if given.project:
            with their_own(given, console) as ways:
                done = rounds(ways, given.rounds, console, theirs.usable)
                return report(done, given, console)
        ways = reference(given.workers, given.options)
        names = ", ".join(way.name for way in ways)
        say(f"Running {names}: {given.rounds} times in turn.", console)
        # It imports the application, which only this repository's suite needs.
        from benchmark.server import server_url  # noqa: PLC0415

        # One server for all runs, started before the first, so that no strategy pays for its start.
        os.environ["TEST_DATABASE_URL"] = server_url().render_as_string(hide_password=False)
        return report(rounds(ways, given.rounds, console, check), given, console)
    except KeyboardInterrupt:
        console.print("Interrupted: the figures are those of the runs that had finished.")
        return 130
    except (theirs.CannotRunError, NoInterpreterError) as error:
        say(str(error), console, "red")
        return 1


if __name__ == "__main__":
    sys.exit(main())
