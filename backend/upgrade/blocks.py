"""Blocks to paste: each shape's own file, and docs/blocks.md, which shows them whole.

`make blocks` writes the comments of the reference block into all blocks, and the blocks into the
page, each under the heading that is its shape's name.
"""

from __future__ import annotations

import re
from pathlib import Path

from upgrade.change import CURRENT
from upgrade.parts import changed_lines, comments, parts

BACKEND = Path(__file__).parent.parent
SHAPES = BACKEND / "guarantees" / "shapes"
PAGE = BACKEND.parent / "docs" / "blocks.md"
USUAL = "usual"
# A heading, what is said below it, the number of lines, and the block.
ENTRY = re.compile(
    r"(^## (\w+)\n(?:(?!```|##)[^\n]*\n)*?)"
    r"Lines: (\d+)\n\n```python\n(.*?)^```\n",
    re.MULTILINE | re.DOTALL,
)


def usual() -> str:
    """Return the block of the reference conftest."""
    return parts(CURRENT.read_text(encoding="utf-8")).block


def blocks() -> dict[str, str]:
    """Return the block of each shape; one without a file has the usual one."""
    found = {USUAL: usual()}
    for folder in sorted(path for path in SHAPES.iterdir() if path.is_dir()):
        own = folder / "block.py"
        found[folder.name] = with_end(own.read_text(encoding="utf-8")) if own.exists() else usual()
    return found


def with_end(block: str) -> str:
    """Return a block with the empty lines that separate it from what follows."""
    return block.strip() + usual()[len(usual().rstrip()) :]


def shown() -> dict[str, tuple[int, str]]:
    """Return the number of lines and the block that the page shows for each shape."""
    page = PAGE.read_text(encoding="utf-8")
    return {name: (int(lines), with_end(block)) for _, name, lines, block in ENTRY.findall(page)}


def refresh() -> None:
    """Write the comments into the blocks, and the blocks into the page."""
    for path in SHAPES.glob("*/block.py"):
        block = path.read_text(encoding="utf-8")
        for mark, comment in comments(usual()).items():
            block = block.replace(comments(block)[mark], comment)
        path.write_text(block, encoding="utf-8")
    now = blocks()

    def entry(found: re.Match[str]) -> str:
        block = now[found[2]]
        lines = changed_lines(block, usual())
        return f"{found[1]}Lines: {lines}\n\n```python\n{block.strip()}\n```\n"

    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(ENTRY.sub(entry, page), encoding="utf-8")


if __name__ == "__main__":
    refresh()
