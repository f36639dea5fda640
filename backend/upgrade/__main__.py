"""Bring a copied conftest to the version of this checkout, and leave your block as it is.

It refuses, and writes nothing, where a line outside the block was changed; and shows the change.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

from upgrade.change import RefusedError, Upgrade, releases, summary, upgrade
from upgrade.parts import parts


def main() -> int:
    """Upgrade a file; return 0 unless it was refused."""
    parser = argparse.ArgumentParser(prog="upgrade", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="the conftest.py of your tests")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    discard = "also where lines outside the block were changed: they are lost"
    parser.add_argument("--discard-edits", action="store_true", help=discard)
    given = parser.parse_args()
    if not given.file.is_file():
        parser.error(f"there is no file {given.file}")
    text = given.file.read_bytes().decode()
    try:
        done = upgrade(text, releases(), discard_edits=given.discard_edits)
    except RefusedError as error:
        sys.stderr.write(f"{given.file} stays as it is: {error}\n")
        return 1
    if done.text != text and not given.dry_run:
        given.file.write_bytes(done.text.encode())
    sys.stdout.write("\n".join(report(given.file, text, done)) + "\n")
    return 0


def report(file: Path, text: str, done: Upgrade) -> Iterator[str]:
    """Yield what to say of an upgrade."""
    if done.text == text:
        yield f"{file} is {done.after}, the newest."
        return
    yield f"{file}: {done.before} -> {done.after}, {summary(text, done.text)}."
    before, after = parts(text).block, parts(done.text).block
    if before == after:
        yield "Your block is what it was, byte for byte."
    yield from done.notes
    diff = difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm="")
    yield from (f"  {line}" for line in diff if not line.startswith(("---", "+++")))
    yield "Now read docs/changelog.md, and run your tests."


if __name__ == "__main__":
    sys.exit(main())
