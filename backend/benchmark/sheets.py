"""Tables of the recorded figures: for the terminal, and for the page in docs/benchmarks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.table import Table

from benchmark.fidelity import behaviours
from benchmark.runs import ONE_PROCESS
from benchmark.strategies import LADDER

Row = tuple[str, ...]
# pytest-sqla is the recipe as a plugin: each of its answers is the recipe's.
IN_README = ("ours", "recipe", "pytest_postgresql", "pgmem", "py_pglite")


class Sheet(NamedTuple):
    """A table before anybody has drawn it; the first column is text, the others are numbers."""

    name: str
    columns: Row
    rows: Sequence[Row]


def of(part: str, measured: dict[str, Any]) -> list[Sheet]:
    """Return the tables of one part of the benchmark."""
    return SHEETS[part](measured)


def spread(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return median, minimum and maximum in seconds."""
    return f"{row['median_s']:.2f}", f"{min(row['wall_s']):.2f}", f"{max(row['wall_s']):.2f}"


def strategies(measured: dict[str, Any]) -> list[Sheet]:
    """Return all strategies, and the ladder of what each step gains."""
    figures = measured["figures"]
    base = figures.get("drop and create")
    columns = ("strategy", "median s", "min", "max", "faster", "ms a test", "DDL", "connections")
    rows: list[Row] = [
        (
            name,
            *spread(row),
            f"{base['median_s'] / row['median_s']:.1f} x" if base else "",
            f"{row['ms_per_test']:.1f}",
            f"{row['ddl']}",
            f"{row['connections']}",
        )
        for name, row in figures.items()
    ]
    rows += failures(measured, columns)
    return [Sheet("strategies", columns, rows), ladder(figures)]


def comparison(result: dict[str, Any]) -> Sheet:
    """Return the strategies of `make compare`."""
    columns = ("", "median s", "min", "max", "faster", "ms/test", "set-up", "DDL", "connects")
    before = result["strategies"].get("before")
    rows = [
        (
            name if row["way"] == ONE_PROCESS else f"{name} {row['way']}",
            *spread(row),
            f"{before['median_s'] / row['median_s']:.1f} x" if before else "",
            f"{row['ms_per_test']:.1f}",
            f"{row['fixture_share']:.0%}",
            *(
                f"{row[count]}" if row[count] is not None else ""
                for count in ("ddl", "connections")
            ),
        )
        for name, row in result["strategies"].items()
    ]
    which = result.get("which", "the same ones under each conftest")
    return Sheet(f"{result['tests']} tests, {which}", columns, rows)


def ladder(figures: dict[str, Any]) -> Sheet:
    """Return what each step gains over the one before it, and over the first."""
    walls = [(step, figures[name]["median_s"]) for step, name in LADDER if name in figures]
    rows = []
    for number, (step, wall) in enumerate(walls):
        previous = walls[max(number - 1, 0)][1]
        times = f"{previous / wall:.1f} x", f"{walls[0][1] / wall:.1f} x"
        rows.append((step, f"{wall:.2f}", *times))
    return Sheet("ladder", ("step", "median s", "this step", "in all"), rows)


def rivals(measured: dict[str, Any]) -> list[Sheet]:
    """Return all rivals, the fastest first."""
    columns = ("rival", "median s", "min", "max", "ms a test", "set-up and teardown, ms a test")
    ranked = sorted(measured["figures"].items(), key=lambda item: float(item[1]["median_s"]))
    rows: list[Row] = [
        (name, *spread(row), f"{row['ms_per_test']:.2f}", f"{row['fixtures_ms']:.2f}")
        for name, row in ranked
    ]
    return [Sheet("rivals", columns, rows + failures(measured, columns))]


def fidelity(measured: dict[str, Any]) -> Sheet:
    """Return what production does, which rivals show it, and what a test costs under each."""
    shown, figures = measured["fidelity"], measured["figures"]
    rows = [
        (said, *("yes" if shown[rival][test] else "**no**" for rival in IN_README))
        for test, said in behaviours().items()
    ]
    costs = [f"{figures[name]['ms_per_test']:.1f}" if name in figures else "" for name in IN_README]
    rows.append(("milliseconds a test", *costs))
    titles = ("this", *(name.replace("_", "-") for name in IN_README[1:]))
    return Sheet("fidelity", ("behaviour", *titles), rows)


def failures(measured: dict[str, Any], columns: Row) -> list[Row]:
    """Return a row without figures for each strategy that failed."""
    return [(name, "failed", *[""] * (len(columns) - 2)) for name in measured["failed"]]


def limit(measured: dict[str, Any]) -> list[Sheet]:
    """Return isolation beside the bare driver, and the smallest whole tests."""
    rows = [
        (
            f"{row['tables']} tables, {row['sequences']} sequences, {row['rows']:,} rows",
            f"{row['bare_ms']:.3f}",
            f"{row['isolation_ms']:.3f}",
            f"{row['isolation_ms'] / row['bare_ms']:.1f}",
            f"{row['real_commits_ms']:.2f}",
            f"{row['around_real_commits_ms']:.2f}",
            f"{row['clone_ms']:.0f}",
        )
        for row in measured["isolation"]
    ]
    ours = ("rolled back, ms", "times", "real commits, ms", "of it isolation, ms")
    columns = ("database", "bare, ms", *ours, "clone, ms")
    tests = [(title, f"{ms:.2f}") for title, ms in measured["whole_tests"].items()]
    return [
        Sheet("isolation", columns, rows),
        Sheet("whole-tests", ("whole tests", "median ms"), tests),
    ]


def growth(measured: dict[str, Any]) -> list[Sheet]:
    """Return the wall times over tests and workers, and from where parallel pays."""
    walls = measured["walls"]
    ways = list(dict.fromkeys(row["way"] for row in walls))
    rows = []
    for tests in sorted({row["tests"] for row in walls}):
        found = {row["way"]: row for row in walls if row["tests"] == tests}
        cells = [f"{found[way]['wall_s']:.1f}" if way in found else "failed" for way in ways]
        fixtures = f"{found[ONE_PROCESS]['fixtures_ms']:.2f}" if ONE_PROCESS in found else ""
        rows.append((f"{tests}", *cells, fixtures))
    columns = ("tests", *(f"{way}, s" for way in ways), "set-up and teardown, ms a test")
    return [Sheet("growth", columns, rows), Sheet("lines", LINES, lines(measured["lines"]))]


LINES = ("", "start, s", "then, ms a test", "faster than one process from")


def lines(fitted: dict[str, dict[str, float | None]]) -> list[Row]:
    """Return the fitted lines, and the number of tests from which each pays."""
    rows: list[Row] = []
    for way, line in fitted.items():
        pays_from = line["pays_from"]
        pays = f"{pays_from:.0f} tests" if pays_from is not None else "never"
        numbers = f"{line['start_s']:.1f}", f"{line['ms_per_test']:.1f}"
        rows.append((way, *numbers, pays if way != ONE_PROCESS else ""))
    return rows


SHEETS = {"strategies": strategies, "rivals": rivals, "limit": limit, "growth": growth}


def table(sheet: Sheet) -> Table:
    """Return a table for the terminal."""
    made = Table(title=sheet.name)
    for number, column in enumerate(sheet.columns):
        made.add_column(column, justify="right" if number else "left")
    for row in sheet.rows:
        made.add_row(*row)
    return made


def markdown(sheet: Sheet) -> str:
    """Return a table for a page."""
    rule = ["---", *["---:"] * (len(sheet.columns) - 1)]
    lines_of_it = [sheet.columns, rule, *sheet.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines_of_it)


def circumstances(measured: dict[str, Any]) -> str:
    """Return a line that says when, where and with what a part was measured."""
    machine = measured["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in measured["versions"].items())
    where = f"{machine['cpus']} CPUs, {machine['system']}, Python {machine['python']}"
    return f"Measured on {measured['date']}: {where}, {versions}."


def filled_with(result: dict[str, Any], text: str) -> str:
    """Return the text of a page with these figures, each table between its two comments."""
    for part, measured in result.items():
        text = filled(text, f"{part}-measured", circumstances(measured))
        for sheet in of(part, measured):
            text = filled(text, sheet.name, markdown(sheet))
    return text


def readme_filled_with(result: dict[str, Any], text: str) -> str:
    """Return the text of the README with these figures."""
    return filled(text, "fidelity", markdown(fidelity(result["rivals"])))


def filled(text: str, name: str, content: str) -> str:
    """Return a text with new content between `<!-- name -->` and `<!-- /name -->`."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    new, count = re.subn(pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL)
    if count != 1:
        message = f"the page needs <!-- {name} --> and <!-- /{name} --> once, and has them {count}"
        raise ValueError(message)
    return new
