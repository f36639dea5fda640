"""The figures of a comparison as Markdown, for the summary of a CI job: `make summary`."""

import json
import sys
from pathlib import Path
from typing import Any

COLUMNS = ("median s", "min", "max", "faster", "ms/test", "set-up", "DDL", "connects")


def summary(figures: dict[str, Any]) -> str:
    """Return a table of all strategies and a chart of their medians."""
    strategies = figures["strategies"].items()
    names = [
        name if row["workers"] == 1 else f"{name} -n {row['workers']}" for name, row in strategies
    ]
    medians = [round(row["median_s"], 2) for _, row in strategies]
    table = [
        f"| {name} | {row['median_s']:.2f} | {min(row['wall_s']):.2f} | {max(row['wall_s']):.2f} "
        f"| {medians[0] / row['median_s']:.1f} x | {row['ms_per_test']:.1f} "
        f"| {row['fixture_share']:.0%} | {row['ddl']} | {row['connections']} |"
        for name, (_, row) in zip(names, strategies, strict=True)
    ]
    machine = figures["machine"]
    return "\n".join(
        [
            f"## {figures['tests']} tests, the same ones under each conftest",
            "",
            f"| | {' | '.join(COLUMNS)} |",
            f"|---|{'--:|' * len(COLUMNS)}",
            *table,
            "",
            "```mermaid",
            "xychart-beta horizontal",
            '    title "Seconds, median"',
            f"    x-axis {json.dumps(names)}",
            f'    y-axis "s" 0 --> {max(medians)}',
            f"    bar {medians}",
            "```",
            "",
            f"Python {machine['python']}, {machine['cpus']} CPUs, {machine['system']}; "
            + ", ".join(f"{name} {number}" for name, number in figures["versions"].items()),
        ]
    )


if __name__ == "__main__":
    print(summary(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
