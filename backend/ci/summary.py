"""The figures of a comparison as Markdown, for the summary of a CI job: `make summary`."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmark import sheets


def summary(figures: dict[str, Any]) -> str:
    """Return a table of all strategies and a chart of their medians."""
    sheet = sheets.comparison(figures)
    names = [name for name, *_ in sheet.rows]
    medians = [round(row["median_s"], 2) for row in figures["strategies"].values()]
    machine = figures["machine"]
    return "\n".join(
        [
            f"## {sheet.name}",
            "",
            sheets.markdown(sheet),
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
