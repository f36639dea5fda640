"""Charts of the recorded figures, as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.strategies import LADDER

# The same figures give the same file; text stays text, which is small and can be searched.
SETTINGS = {"svg.hashsalt": "fastapi-conftest", "svg.fonttype": "none", "font.size": 9}
OURS, OTHERS = "#2563eb", "#94a3b8"


def draw(result: dict[str, Any], folder: Path) -> None:
    """Write one SVG file for each part that has been measured."""
    drawn = {
        "strategies": ("strategies", strategies),
        "ladder": ("strategies", ladder),
        "rivals": ("rivals", rivals),
        "isolation": ("limit", isolation),
        "growth": ("growth", growth),
    }
    for name, (part, paint) in drawn.items():
        if part in result:
            with mpl.rc_context(SETTINGS):
                figure = Figure(figsize=(7, 3.4), layout="constrained")
                axes = figure.add_subplot()
                axes.spines[["top", "right"]].set_visible(False)
                paint(result[part], axes)
                figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def bars(axes: Axes, walls: dict[str, dict[str, Any]], ours: str) -> None:
    """Draw medians as bars from the slowest to the fastest, with minimum and maximum."""
    ranked = sorted(walls.items(), key=lambda item: float(item[1]["median_s"]))
    names = [name for name, _ in ranked]
    medians = [row["median_s"] for _, row in ranked]
    below = [row["median_s"] - min(row["wall_s"]) for _, row in ranked]
    above = [max(row["wall_s"]) - row["median_s"] for _, row in ranked]
    colors = [OURS if name.startswith(ours) else OTHERS for name in names]
    drawn = axes.barh(names, medians, xerr=[below, above], color=colors, capsize=2)
    axes.bar_label(drawn, fmt=" %.1f")
    axes.set_xlabel("seconds, the whole suite (median, minimum, maximum)")


def strategies(measured: dict[str, Any], axes: Axes) -> None:
    """Draw what the suite takes under each strategy."""
    bars(axes, measured["figures"], "this conftest")


def rivals(measured: dict[str, Any], axes: Axes) -> None:
    """Draw what the neutral suite takes under each rival."""
    bars(axes, measured["figures"], "ours")


def ladder(measured: dict[str, Any], axes: Axes) -> None:
    """Draw what is left of the suite's time after each step."""
    figures = measured["figures"]
    walls = {step: figures[name]["median_s"] for step, name in LADDER if name in figures}
    axes.bar_label(axes.bar([*walls], [*walls.values()], color=OURS), fmt="%.1f")
    axes.set_ylabel("seconds, the whole suite")
    axes.tick_params(axis="x", labelrotation=15)


def isolation(measured: dict[str, Any], axes: Axes) -> None:
    """Draw the cost of isolation over sizes, beside bare BEGIN and ROLLBACK."""
    rows = measured["isolation"]
    names = [
        f"{row['tables']} tables\n{row['sequences']} sequences\n{row['rows']:,} rows"
        for row in rows
    ]
    axes.plot(names, [row["isolation_ms"] for row in rows], "o-", color=OURS, label="isolation")
    bare = [row["bare_ms"] for row in rows]
    axes.plot(names, bare, "o-", color=OTHERS, label="bare BEGIN and ROLLBACK")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms a test")
    axes.legend()


def growth(measured: dict[str, Any], axes: Axes) -> None:
    """Draw the wall time over the number of tests, for each way to run them."""
    for way in dict.fromkeys(row["way"] for row in measured["walls"]):
        rows = [row for row in measured["walls"] if row["way"] == way]
        axes.plot([row["tests"] for row in rows], [row["wall_s"] for row in rows], "o-", label=way)
    axes.set_xlabel("tests")
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.legend()
