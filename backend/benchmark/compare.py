"""Run the same tests under the old conftest and the new one, and report the difference honestly.

`python -m benchmark.compare --help` lists the options; `make compare` runs it on this repository.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark import sheets
from benchmark.profile import profile, show_advice
from benchmark.runs import BACKEND, TESTS, Rounds, Strategy, circumstances, rounds
from benchmark.server import server_url


def summary(done: Rounds) -> dict[str, Any]:
    """Return the figures of all finished runs, as they go into the JSON file."""
    strategies = done.figures()
    before, after = strategies.get("before"), strategies.get("after")
    return {
        "tests": max((figure["passed"] for figure in strategies.values()), default=0),
        "ratio": round(before["median_s"] / after["median_s"], 2) if before and after else None,
        "strategies": strategies,
        **circumstances(),
    }


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


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="compare", description=__doc__)
    parser.add_argument("tests", nargs="?", type=Path, default=TESTS)
    parser.add_argument("--before", type=Path, default=BACKEND / "benchmark" / "before.py")
    parser.add_argument("--after", type=Path, default=TESTS / "conftest.py")
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
    project = {"python": given.python, "tests": given.tests}
    after = Strategy("after", (given.after,), **project)
    strategies = [
        Strategy("before", (given.before,), **project),
        after,
        Strategy("parallel", (given.after,), given.workers, **project),
    ]
    done = rounds(strategies, given.rounds, console)
    result = summary(done)
    if result["strategies"]:
        show(result, console)
        if given.json:
            given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if done.runs[after] and after not in done.problems and not done.interrupted:
        show_advice(profile(after), console)
    for problem in done.problems.values():
        console.print(problem, style="red", markup=False)
    if done.interrupted:
        console.print("Interrupted: the figures are those of the runs that had finished.")
        return 130
    return 1 if done.problems else 0


if __name__ == "__main__":
    sys.exit(main())
