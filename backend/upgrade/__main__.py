"""Bring a copied conftest to the version of this checkout, and leave your block as it is.

It refuses, and writes nothing, where a line outside the block was changed; and shows the change.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from upgrade.change import RefusedError, releases, summary, upgrade
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
        print(f"{given.file} stays as it is: {error}", file=sys.stderr)
        return 1
    if done.text == text:
        print(f"{given.file} is {done.after}, the newest.")
        return 0
    if not given.dry_run:
        given.file.write_bytes(done.text.encode())
    print(f"{given.file}: {done.before} -> {done.after}, {summary(text, done.text)}.")
    show(done.notes, parts(text).block, parts(done.text).block)
    print("Now read docs/changelog.md, and run your tests.")
    return 0


def show(notes: list[str], before: str, after: str) -> None:
    """Print what has become of the block."""
    if before == after:
        print("Your block is what it was, byte for byte.")
    for note in notes:
        print(note)
    for line in difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm=""):
        if not line.startswith(("---", "+++")):
            print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
