"""Measure every strategy, every rival, the limit and the growth on this machine.

`make benchmark` measures all four and `make benchmark-rivals` the rivals alone. The figures go into
a JSON file in docs/benchmarks, one for each kind of machine; charts and tables are made from it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark import charts, sheets
from benchmark.fidelity import RIVALS, fidelity
from benchmark.interpreter import circumstances
from benchmark.isolation import isolation
from benchmark.runs import BACKEND, Rounds, Strategy, lines, rounds
from benchmark.server import server_url, server_version
from benchmark.strategies import OURS, STRATEGIES
from benchmark.whole_tests import whole_tests

RESULTS = BACKEND.parent / "docs" / "benchmarks"
NAMES = ("ours", "recipe", "pytest_sqla", "pytest_postgresql", "pgmem", "py_pglite")
RIVALS_PYTHON = BACKEND.parent / ".venv-rivals" / "bin" / "python"
REPEATS = (1, 4, 20)  # of the reference suite
WORKERS = ((0, False), (2, False), (2, True), (4, False), (8, False))  # and whether forked


def outcome(done: Rounds) -> dict[str, Any]:
    """Return figures and failures; what failed has no figures."""
    if done.interrupted:
        raise KeyboardInterrupt
    return {
        "figures": done.figures(),
        "failed": {strategy.name: problem for strategy, problem in done.problems.items()},
    }


def measure_strategies(count: int, console: Console) -> dict[str, Any]:
    """Run the reference suite under every strategy."""
    return outcome(rounds(STRATEGIES, count, console))


def measure_rivals(count: int, console: Console) -> dict[str, Any]:
    """Run the neutral suite under every rival."""
    rivals = [
        Strategy(name, (RIVALS / f"{name}.py",), python=RIVALS_PYTHON, tests=RIVALS / "neutral")
        for name in NAMES
    ]
    return outcome(rounds(rivals, count, console)) | {
        "fidelity": {name: fidelity(name, RIVALS_PYTHON, console) for name in NAMES},
        "versions": rivals_versions(),
    }


def rivals_versions() -> dict[str, str]:
    """Return the versions that are installed in the rivals' environment."""
    names = ["pytest-sqla", "pytest-postgresql", "pgmem", "py-pglite", "psycopg"]
    code = f"from importlib.metadata import version as v; print(*map(v, {names}))"
    printed = subprocess.run(  # noqa: S603 - our own command
        [RIVALS_PYTHON, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    return dict(zip(names, printed.split(), strict=True))


def measure_limit(_count: int, _console: Console) -> dict[str, Any]:
    """Measure isolation beside the bare driver, and the smallest whole tests."""
    return {"isolation": isolation(), "whole_tests": whole_tests(server_url())}


def measure_growth(_count: int, console: Console) -> dict[str, Any]:
    """Run the reference suite several times over, on several numbers of workers."""
    walls, failed = [], {}
    for repeats in REPEATS:
        options = ("--noconftest", f"--count={repeats}")
        ways = [Strategy("", OURS, *workers, options) for workers in WORKERS]
        suites = [replace(way, name=f"{repeats} x, {way.way}") for way in ways]
        done = rounds(suites, 1, console)
        figures = outcome(done)
        failed.update(figures["failed"])
        walls += [
            {
                "tests": row["passed"],
                "way": row["way"],
                "wall_s": row["median_s"],
                "fixtures_ms": row["fixtures_ms"],
            }
            for row in figures["figures"].values()
        ]
    return {"walls": walls, "lines": lines(walls), "failed": failed}


PARTS: dict[str, Callable[[int, Console], dict[str, Any]]] = {
    "strategies": measure_strategies,
    "rivals": measure_rivals,
    "limit": measure_limit,
    "growth": measure_growth,
}


def results_file() -> Path:
    """Return the file of this kind of machine."""
    kind = f"{platform.system()}-{platform.machine()}-{os.cpu_count()}-cpus".lower()
    return RESULTS / f"{kind}.json"


def main() -> int:
    """Measure, save after each part, draw; return 0 only if nothing failed."""
    parser = argparse.ArgumentParser(prog="benchmark", description=__doc__)
    parser.add_argument("parts", nargs="*", default=[*PARTS], help=f"of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each strategy (3)")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"{', '.join(unknown)}: the parts are {', '.join(PARTS)}")
    if "rivals" in given.parts and not RIVALS_PYTHON.exists():
        parser.error("the rivals have no environment; type: make benchmark-rivals")
    console = Console(width=None if sys.stdout.isatty() else 100)
    url = server_url()
    os.environ["TEST_DATABASE_URL"] = url.render_as_string(hide_password=False)
    versions = {"PostgreSQL": asyncio.run(server_version(url))}
    file = results_file()
    result = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    failed: dict[str, str] = {}
    for part in given.parts:
        measured = PARTS[part](given.rounds, console)
        failed.update(measured.get("failed", {}))
        with_versions = circumstances()
        with_versions["versions"] |= versions | measured.pop("versions", {})
        result[part] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", **with_versions, **measured}
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        for sheet in sheets.of(part, result[part]):
            console.print(sheets.table(sheet))
    charts.draw(result, RESULTS)
    fill = {RESULTS / "README.md": sheets.filled_with}
    if "rivals" in result:
        fill[BACKEND.parent / "README.md"] = sheets.readme_filled_with
    for page, filled_with in fill.items():
        text = filled_with(result, page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")
    for problem in failed.values():
        console.print(problem, style="red", markup=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
