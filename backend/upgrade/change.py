"""What an upgrade writes, or why it refuses.

The adopter's block stays as it is. A line is added to it only where it would not work without: an
import that the head had and has no longer, or a name that the new machinery asks the block for.
"""

from __future__ import annotations

import ast
import difflib
import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from upgrade.parts import (
    OLD_VERSION,
    NoPartsError,
    Parts,
    bound,
    code_lines,
    comments,
    names,
    parts,
    used,
)

RELEASED = Path(__file__).parent / "released"
RENAMED = {"APP": "application"}  # since 0.1
CURRENT = Path(__file__).parent.parent / "tests" / "conftest.py"


class RefusedError(Exception):
    """An upgrade would lose or break something; the message says what, and what to do."""


class Upgrade(NamedTuple):
    """What becomes of a copy."""

    before: str  # the version
    after: str
    text: str
    notes: list[str]


def releases() -> dict[str, str]:
    """Return every version that teams may have copied, this one included."""
    found = {
        path.name.removesuffix(".py.gz"): gzip.decompress(path.read_bytes()).decode()
        for path in RELEASED.glob("*.py.gz")
    }
    current = CURRENT.read_text(encoding="utf-8")
    return found | {parts(current).version: current}


def upgrade(text: str, known: Mapping[str, str], *, discard_edits: bool = False) -> Upgrade:
    """Bring a copy to the newest known version, or refuse.

    `known` are the released versions. With `discard_edits` what somebody has changed outside the
    block is given up.
    """
    theirs = understood(text, known)
    newest = max(known, key=number)
    released, ours = parts(known[theirs.version]), parts(known[newest])
    newline = "\r\n" if "\r\n" in text else "\n"
    notes = [] if discard_edits else check_edits(theirs, released)
    if theirs.version == newest:
        result = put_together(ours, theirs.block, newline) if discard_edits else text
        return Upgrade(newest, newest, result, notes)
    check_clashes(theirs, released, ours)
    block, more = adapted(theirs, released, ours)
    if block != theirs.block:
        block = unix(block).replace("\n", newline)
    return Upgrade(theirs.version, newest, put_together(ours, block, newline), notes + more)


def understood(text: str, known: Mapping[str, str]) -> Parts:
    """Return the parts of a copy whose version is known; refuse any other file."""
    newest = max(known, key=number)
    try:
        theirs = parts(text)
    except (NoPartsError, SyntaxError) as error:
        raise RefusedError(str(error)) from error
    if number(theirs.version) > number(newest):
        raise RefusedError(f"it is {theirs.version}, newer than this checkout's {newest}: git pull")
    if theirs.version not in known:
        problem = f"it says {theirs.version}, which is no released version"
        raise RefusedError(f"{problem}: {', '.join(sorted(known, key=number))}")
    return theirs


def adapted(theirs: Parts, released: Parts, ours: Parts) -> tuple[str, list[str]]:
    """Return the block with what the new machinery needs of it, and what to say of that."""
    block, notes = theirs.block, []
    if theirs.version == OLD_VERSION:
        block = in_one_block(theirs, released, ours)
        if theirs.actors.strip():
            notes.append("What stood at the end of the file is now the end of your block.")
    missing = lost_imports(theirs, released, ours)
    block = "".join(f"{line}\n" for line in missing) + block
    added = asked_for(block, ours)
    for statement in added:
        block = insert(block, statement, ours.block)
    notes += [f"Added to your block: {line}" for line in [*missing, *added]]
    notes += [
        f"Your block uses {name}, which {ours.version} does not have: see docs/changelog.md"
        for name in gone(theirs, released, ours)
    ]
    notes += [
        f"Your block names something {name}, and so does {ours.version}: give yours another name"
        for name in sorted(names(block) & names(ours.machinery))
    ]
    return block, notes


def number(version: str) -> tuple[int, ...]:
    """Return a version as what can be compared."""
    return tuple(map(int, version.split(".")))


def unix(text: str) -> str:
    """Return a text with one newline for each."""
    return text.replace("\r\n", "\n")


def put_together(ours: Parts, block: str, newline: str) -> str:
    """Return our version with a block as it is, and with the newlines of its file."""
    head, machinery = unix(ours.head), unix(ours.machinery)
    return head.replace("\n", newline) + block + machinery.replace("\n", newline)


def check_edits(theirs: Parts, released: Parts) -> list[str]:
    """Refuse where somebody has changed what is ours, and show the change; else say what is lost.

    Imports of the head are no change: an editor sorts them, and what was added is carried over.
    A formatter's layout is none either.
    """
    for before, after in (released.head, theirs.head), (released.machinery, theirs.machinery):
        if meaning(before) != meaning(after):
            shown = difference(before, after, released.version)
            raise RefusedError(
                f"outside your block it is not {released.version} as it was released:\n\n{shown}\n"
                "Move what you need of this into your block, or into another conftest below this\n"
                "folder. Then give it up: make upgrade FILE=... ARGS=--discard-edits"
            )
    if unix(theirs.machinery) != unix(released.machinery):
        return ["Below your block its layout or its comments were changed; they are ours again."]
    return []


def meaning(text: str) -> list[str]:
    """Return what a part of a module does, whatever its layout, comments and imports are."""
    statements = ast.parse(text).body
    return [
        ast.dump(each) for each in statements if not isinstance(each, ast.Import | ast.ImportFrom)
    ]


def difference(before: str, after: str, version: str) -> str:
    """Return a change as a diff, without what a formatter has done."""
    texts = [(unix(before), unix(after)), (canonical(before), canonical(after))]
    diffs = [
        list(difflib.unified_diff(old.splitlines(), new.splitlines(), version, "yours", "", "", 2))
        for old, new in texts
    ]
    return "\n".join(line.rstrip("\n") for line in min(diffs, key=len))


def canonical(text: str) -> str:
    """Return a module as Python would write it."""
    return ast.unparse(ast.parse(text))


def check_clashes(theirs: Parts, released: Parts, ours: Parts) -> None:
    """Refuse where the block and the new machinery would give one name two meanings."""
    before = names(released.machinery) & names(theirs.block)  # has always been so
    clashes = names(theirs.yours) & names(ours.machinery) - before
    if clashes:
        raise RefusedError(
            f"your block and {ours.version} both define {', '.join(sorted(clashes))}: ours stands "
            "below and would win. Rename yours, or move it into a conftest of the folder below."
        )


def in_one_block(theirs: Parts, released: Parts, ours: Parts) -> str:
    """Return the block of 0.1 with the actors in it, under the comments that the marks now have."""
    block = unix(theirs.block).rstrip() + "\n\n\n" + unix(theirs.actors).strip()
    for mark, comment in comments(released.block).items():
        block = block.replace(comment, comments(ours.block)[mark])
    end = ours.block[len(ours.block.rstrip()) :]
    return block.rstrip() + end


def lost_imports(theirs: Parts, released: Parts, ours: Parts) -> list[str]:
    """Return the imports that the block needs and that the new head does not make for it."""
    kept, ours_before = names(ours.head) | names(theirs.yours), names(released.head)
    needed, found = used(theirs.yours), []
    for statement in ast.parse(theirs.head).body:
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            continue
        for name in statement.names:
            each = type(statement)(**{**vars(statement), "names": [name]})
            (it,) = bound(each)
            if it not in kept and (it in needed or it not in ours_before):
                found.append(ast.unparse(each))
    return found


def asked_for(block: str, ours: Parts) -> list[str]:
    """Return the lines of the new block that its machinery needs and the adopter's has not."""
    theirs = names(block)
    wanted = used(ours.machinery) - theirs
    found = []
    for statement in ast.parse(ours.block).body:
        new = bound(statement) & wanted
        if new and isinstance(statement, ast.Assign | ast.AnnAssign):
            (name,) = new
            was = RENAMED.get(name)
            source = ast.get_source_segment(ours.block, statement) or ""
            found.append(f"{name} = {was}" if was in theirs else source)
    return found


def insert(block: str, line: str, reference: str) -> str:
    """Put a line where the reference block has it: below the same comment or the same line.

    And below all that it uses. Its comment comes with it, where the block has not kept that.
    """
    (new,) = names(line)
    statements = ast.parse(reference).body
    at = next(at for at, each in enumerate(statements) if new in bound(each))
    above = "".join(reference.splitlines(keepends=True)[: statements[at].lineno - 1])
    comment = list(comments(above).values())[-1]
    if above.endswith(comment) and comment in unix(block):
        before, _, after = unix(block).partition(comment)
        gap = "\n\n" if after.startswith(("def ", "async def ", "@")) else ""
        return f"{before}{comment}{line}\n{gap}{after}"
    lines = block.splitlines(keepends=True)
    after_line = place(block, bound(statements[at - 1]) | used(line))
    added = f"{line}\n" if comment in unix(block) else f"{comment}{line}\n"
    return "".join(lines[:after_line]) + added + "".join(lines[after_line:])


def place(block: str, neighbours: set[str]) -> int:
    """Return after how many lines a new one can stand: below these names, and among no imports."""
    lines = block.splitlines()
    after, in_imports = len(block.rstrip().splitlines()), False
    for each in ast.parse(block).body:
        is_import = isinstance(each, ast.Import | ast.ImportFrom)
        in_imports = is_import and (in_imports or bool(bound(each) & neighbours))
        if in_imports or bound(each) & neighbours:
            after = each.end_lineno or 0
            after += in_imports and not lines[after].strip()  # the empty line below them
    return after


def gone(theirs: Parts, released: Parts, ours: Parts) -> list[str]:
    """Return what the block uses of the old machinery and the new one does not have."""
    new = names(ours.head) | names(ours.machinery) | names(theirs.yours)
    return sorted(used(theirs.yours) & names(released.machinery) - new)


def summary(before: str, after: str) -> str:
    """Return in a line how much of a file has changed."""
    diff = [*difflib.ndiff(code_lines(before), code_lines(after))]
    out, new = (sum(line.startswith(sign) for line in diff) for sign in "-+")
    return f"{out} lines of code out, {new} in"
