"""What became of each test on two sides of a comparison, and where that differs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from statistics import median
from typing import Any, NamedTuple

from benchmark.runs import Run

ABSENT = "not there"
# The name of the event loop in the id of a test, and the group that xdist puts behind it.
LOOP = re.compile(r"(?<=[\[-])asyncio(\+uvloop)?(?=[-\]])")
GROUP = re.compile(r"@[^\[\]]*$")
SHOWN = 5  # tests of each difference
RANKS = {"passed": 2, "xpassed": 2, "failed": 0, "error": 0}  # all others are 1


class Pair(NamedTuple):
    """A test on both sides, and what became of it; it has no id where it is absent."""

    first: str | None
    second: str | None
    was: str
    became: str


def is_worse(was: str, became: str) -> bool:
    """Tell whether an outcome is worse than the one before; `a or b` is as bad as the worse."""
    before, after = (min(RANKS.get(one, 1) for one in it.split(" or ")) for it in (was, became))
    return after < before


def bare(test: str) -> str:
    """Return the id of a test without its event loop: `a[asyncio-1]` is `a[1]`."""
    without = LOOP.sub("", GROUP.sub("", test))
    return without.replace("[-", "[").replace("-]", "]").replace("--", "-").removesuffix("[]")


def outcomes(runs: Sequence[Run]) -> dict[str, str]:
    """Return what became of each test, `passed or failed` where the runs do not agree."""
    found: dict[str, str] = {}
    for test in dict.fromkeys(test for run in runs for test in run.tests):
        each = [run.tests[test].outcome if test in run.tests else ABSENT for run in runs]
        found[test] = " or ".join(dict.fromkeys(each))
    return found


class Sides:
    """Two sides, their names and their runs."""

    def __init__(self, a: str, b: str, a_runs: Sequence[Run], b_runs: Sequence[Run]) -> None:
        """Compare the runs of a with those of b."""
        self.names = (a, b)
        self.runs = (a_runs, b_runs)

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every test once: both sides know it by one id, or else by one id without event loops."""
        first, second = map(outcomes, self.runs)
        unknown: dict[str, list[str]] = defaultdict(list)
        for test in second:
            if test not in first:
                unknown[bare(test)].append(test)
        pairs = []
        for test, was in first.items():
            candidates = [test] if test in second else unknown[bare(test)]
            partner = candidates.pop(0) if candidates else None
            pairs.append(Pair(test, partner, was, second[partner] if partner else ABSENT))
        rest = (test for tests in unknown.values() for test in tests)
        return pairs + [Pair(None, test, ABSENT, second[test]) for test in rest]

    @cached_property
    def compared(self) -> list[Pair]:
        """The tests that passed on both sides, in every run."""
        return [pair for pair in self.pairs if pair.was == pair.became == "passed"]

    @cached_property
    def different(self) -> dict[tuple[str, str], list[Pair]]:
        """The tests of which something else became, from side to side or from run to run.

        What is worse comes first.
        """
        groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
        for pair in self.pairs:
            if pair.was != pair.became or " or " in pair.was:
                groups[pair.was, pair.became].append(pair)
        return dict(sorted(groups.items(), key=lambda it: (not is_worse(*it[0]), -len(it[1]))))

    @property
    def got_worse(self) -> bool:
        """Whether any test is worse on the second side."""
        return any(is_worse(*kind) for kind in self.different)

    def recorded(self) -> Iterator[dict[str, Any]]:
        """Yield the differences, for a JSON file."""
        for kind, group in self.different.items():
            tests = sorted(pair.first or pair.second or "" for pair in group)
            worse = is_worse(*kind)
            yield {"sides": self.names, "outcomes": kind, "worse": worse, "tests": tests}

    def described(self) -> Iterator[str]:
        """Yield the lines that say what differs, with the first tests of each kind."""
        if not self.different:
            return
        a, b = self.names
        a_s, b_s = self.seconds_of_others()
        yield f"\n{a} and {b} differ; the table compares the tests that passed on both sides, but"
        yield f"its seconds are of whole runs: {a_s:.2f} s {a} and {b_s:.2f} s {b} of other tests."
        for (was, became), group in self.different.items():
            verdict = "WORSE, " if is_worse(was, became) else ""
            yield f"{verdict}{len(group)} test{'s' * (len(group) > 1)}: {was} {a}, {became} {b}"
            first, *others = sorted(map(self.lines, group))
            for line in (*first, *(each[0] for each in others[: SHOWN - 1])):
                yield f"  {line}"
            if len(group) > SHOWN:
                yield f"  and {len(group) - SHOWN} more"

    def lines(self, pair: Pair) -> list[str]:
        """Return the id of a test, and what it failed with last, whole."""
        ids = (pair.second, pair.first)
        runs = (
            (test, run) for test, side in zip(ids, self.runs[::-1], strict=True) for run in side
        )
        whys = (run.tests[test].why for test, run in runs if test and test in run.tests)
        why = next(filter(None, whys), None)
        return f"{ids[1] or ids[0]}{f': {why}' if why else ''}".splitlines()

    def seconds_of_others(self) -> Iterator[float]:
        """Yield the seconds that each side has spent on tests that are not compared."""
        ids = {pair.first for pair in self.compared}, {pair.second for pair in self.compared}
        for known, runs in zip(ids, self.runs, strict=True):
            yield median(
                sum(t.fixtures_s + t.call_s for name, t in run.tests.items() if name not in known)
                for run in runs
            )
