"""A conftest in its parts: what is ours above, the adopter's block, what is ours below.

0.1 had another form: its block began at `# isort: split`, and the actors stood at the end.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from typing import NamedTuple

BEGIN = "# === Yours "
END = "# Nothing below this line needs editing."
OLD_BEGINS = ("# isort: split", "# ADAPT 1/4")
OLD_ACTORS = "# --- actors: yours to replace ---"
OLD_LAST = "client"  # the function that the machinery of 0.1 ends with
OLD_VERSION = "0.1.0"  # had no line that says so
Statement = ast.stmt


class NoPartsError(ValueError):
    """A file is no copy of the conftest."""


class Parts(NamedTuple):
    """The parts of a conftest; joined, the first three are the file."""

    head: str  # up to the line that begins the block, and with it
    block: str
    machinery: str  # from the line on that ends the block
    actors: str = ""  # of 0.1 alone, whose end of the file was the adopter's, too
    version: str = ""

    @property
    def yours(self) -> str:
        """What the adopter has written."""
        return self.block + self.actors


def parts(text: str) -> Parts:
    """Take a conftest apart."""
    lines = text.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines, 1) if line.startswith(BEGIN)]
    begin = begins[0] if begins else next(old_begins(lines), 0)
    ends = [at for at, line in enumerate(lines) if line.rstrip() == END]
    if not begin or not ends:
        missing = f"says {END!r}" if begin else f"begins with {BEGIN + '==='!r}"
        raise NoPartsError(f"it is no copy of this conftest: no line {missing}")
    end, last = ends[0], len(lines)
    machinery = "".join(lines[end:])
    said = re.search(r"^VERSION = [\"']([\d.]+)[\"']", machinery, re.MULTILINE)
    if not begins:
        last = end + end_of_old_machinery(machinery)
    elif not said:
        raise NoPartsError("no line below the block says VERSION = ..., which no release lacks")
    return Parts(
        "".join(lines[:begin]),
        "".join(lines[begin:end]),
        "".join(lines[end:last]),
        "".join(line for line in lines[last:] if not line.startswith(OLD_ACTORS)),
        said[1] if said else OLD_VERSION,
    )


def old_begins(lines: list[str]) -> Iterator[int]:
    """Yield the numbers of the lines after which the block of 0.1 may begin."""
    for before, mark in enumerate(OLD_BEGINS):
        for number, line in enumerate(lines, 1):
            if line.startswith(mark):
                yield number - before  # ADAPT 1/4 belongs to the block


def end_of_old_machinery(machinery: str) -> int:
    """Return how many lines the machinery of 0.1 has; what follows is the adopter's."""
    for statement in ast.parse(machinery).body:
        if isinstance(statement, ast.FunctionDef) and statement.name == OLD_LAST:
            return statement.end_lineno or 0
    raise NoPartsError(f"its machinery has no {OLD_LAST}(), which no release lacks")


def compose(reference: str, block: str) -> str:
    """Return a conftest with another block; not a byte of the block is changed."""
    ours = parts(reference)
    return ours.head + block + ours.machinery


def code_lines(block: str) -> list[str]:
    """Return the lines of a block that an adopter has to think about.

    Comments, blank lines and docstrings are not among them, nor are imports, which editors write.
    """
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Expr):
            skipped |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return [
        line
        for number, line in enumerate(block.splitlines(), 1)
        if number not in skipped and line.strip() and not line.lstrip().startswith("#")
    ]


def changed_lines(block: str, reference: str) -> int:
    """Return how many lines of a block the reference block does not have in that place."""
    diff = difflib.ndiff(code_lines(reference), code_lines(block))
    return sum(line.startswith("+ ") for line in diff)


def bound(statement: Statement) -> set[str]:
    """Return the names that a statement of a module gives a meaning to."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(each.asname or each.name).partition(".")[0] for each in statement.names}
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    nodes = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
    return {node.id for node in nodes if isinstance(node.ctx, ast.Store)}


def names(text: str) -> set[str]:
    """Return all names that a module gives a meaning to."""
    return {name for statement in ast.parse(text).body for name in bound(statement)}


def used(text: str) -> set[str]:
    """Return all names that a module uses, also as annotations in quotes and as fixtures."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} if node.value.isidentifier() else set()
    return found


def comments(block: str) -> dict[str, str]:
    """Return the comment at each ADAPT mark of a block."""
    found = re.findall(r"^(# ADAPT (\d+)/\d+.*\n(?:#.*\n)*)", block, re.MULTILINE)
    return {mark: comment for comment, mark in found}
