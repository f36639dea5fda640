"""The conftests of the shapes, on docs/shapes.md: `make shapes-page` writes them there.

Each stands below the heading that is the name of its shape: the smallest whole, every other one as
what differs from the smallest.
"""

from __future__ import annotations

import re
from difflib import unified_diff
from pathlib import Path

BACKEND = Path(__file__).parents[1]
SHAPES = BACKEND / "guarantees" / "shapes"
PAGE = BACKEND.parent / "docs" / "shapes.md"
SMALLEST = "plain"
# A heading, what is said below it, and the code.
SECTION = re.compile(
    r"(^## (\w+)\n(?:(?!```|## )[^\n]*\n)*)```\w+\n.*?^```\n", re.MULTILINE | re.DOTALL
)


def conftests() -> dict[str, str]:
    """Return the conftest of each shape that has one of its own."""
    found = sorted(SHAPES.glob("*/tests/conftest.py"))
    return {path.parts[-3]: path.read_text(encoding="utf-8") for path in found}


def code(shape: str) -> str:
    """Return the code block of a shape."""
    conftest, smallest = conftests()[shape], conftests()[SMALLEST]
    if shape == SMALLEST:
        return f"```python\n{conftest}```\n"
    lines = smallest.splitlines(keepends=True), conftest.splitlines(keepends=True)
    _, _, *changes = unified_diff(*lines, n=1)  # without the names of the files
    # What both have of empty lines is a space, which editors would remove.
    changes = ["\n" if line == " \n" else line for line in changes]
    return f"```diff\n{''.join(changes)}```\n"


def shown(page: str) -> list[str]:
    """Return the shapes that a page shows."""
    return [name for _, name in SECTION.findall(page)]


def refreshed(page: str) -> str:
    """Return a page with the code of the shapes as it is now."""
    return SECTION.sub(lambda found: found[1] + code(found[2]), page)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
