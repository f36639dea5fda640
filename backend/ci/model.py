"""How far workers and shards go: a model of the wall time of larger suites, `make model`.

It takes the recorded durations of this suite's tests and the start-up prices that `make benchmark`
has fitted to measured runs, the newest of them where it ran on several machines. It assumes that
every worker has a processor of its own, that the tests of a larger suite are like these, and that
they are spread evenly.
"""

import argparse
import json
from operator import itemgetter
from typing import Any, NamedTuple

from rich.console import Console

from benchmark import sheets
from benchmark.runs import BACKEND

SUITES = (244, 5_000, 50_000)
WORKERS = (1, 2, 4, 8)
SHARDS = (1, 2, 4, 8)
COLUMNS = ("shards", "one process", *(f"-n {workers}" for workers in WORKERS[1:]))


class Prices(NamedTuple):
    """What the parts of a run cost, in seconds."""

    serial: float  # from the start of one process to its first test
    parallel: float  # the same with workers, which start side by side
    shard: float  # to set up one more machine: checkout, packages, PostgreSQL
    test: float  # the mean
    longest: float  # test


def wall_s(tests: int, workers: int, shards: int, prices: Prices) -> float:
    """Return the seconds until the last shard has finished."""
    start = prices.serial if workers == 1 else prices.parallel
    set_up = prices.shard if shards > 1 else 0
    return set_up + start + max(tests * prices.test / (workers * shards), prices.longest)


def cheapest(tests: int, prices: Prices) -> tuple[int, int]:
    """Return the fewest workers and shards that come within a tenth of the shortest wall time."""
    ways = [(shards, workers) for shards in SHARDS for workers in WORKERS]
    walls = {way: wall_s(tests, way[1], way[0], prices) for way in ways}
    within = [way for way in ways if walls[way] <= 1.1 * min(walls.values())]
    shards, workers = min(within, key=lambda way: (way[0] * way[1], way[0]))
    return workers, shards


def recorded(durations: dict[str, float], lines: dict[str, Any], shard_s: float) -> Prices:
    """Return the prices that were recorded on a machine."""
    mean, longest = sum(durations.values()) / len(durations), max(durations.values())
    serial, parallel = (lines[workers]["start_s"] for workers in ("1", "2"))
    return Prices(serial, parallel, shard_s, mean, longest)


def main() -> None:
    """Print the wall times of each suite over workers and shards."""
    parser = argparse.ArgumentParser(prog="model", description=__doc__)
    parser.add_argument("--shard-s", type=float, default=60, help="to set up one more machine (60)")
    given = parser.parse_args()
    durations = json.loads((BACKEND / "tests" / ".test_durations").read_text(encoding="utf-8"))
    machines = [
        json.loads(file.read_text(encoding="utf-8"))
        for file in (BACKEND.parent / "docs" / "benchmarks").glob("*.json")
    ]
    growth = max((each["growth"] for each in machines if "growth" in each), key=itemgetter("date"))
    prices = recorded(durations, growth["lines"], given.shard_s)
    console = Console(width=100)
    console.print(", ".join(f"{name} {price:.3f} s" for name, price in prices._asdict().items()))
    for tests in SUITES:
        rows = [
            (f"{n}", *(f"{wall_s(tests, workers, n, prices):,.1f}" for workers in WORKERS))
            for n in SHARDS
        ]
        console.print(sheets.table(sheets.Sheet(f"{tests:,} tests: seconds", COLUMNS, rows)))
        workers, shards = cheapest(tests, prices)
        console.print(f"Enough: {workers} workers, {shards} shards\n")
    console.print("Measured, and what the model says of it:")
    for row in growth["walls"]:
        if row["workers"] <= growth["machine"]["cpus"]:
            wall = wall_s(row["tests"], row["workers"], 1, prices)
            line = f"{row['tests']:,} tests, {row['workers']} workers: {row['wall_s']:.1f} s"
            console.print(f"{line}, model {wall:.1f} s")


if __name__ == "__main__":
    main()
