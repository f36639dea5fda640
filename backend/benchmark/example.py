"""The small project under our conftest, on which guarantees, benchmark and CI run pytest."""

from __future__ import annotations

import compileall
import shutil
from functools import cache
from pathlib import Path

from benchmark.runs import BACKEND, TESTS

REAL_CONFTEST, FOLDER = TESTS / "conftest.py", "fastapi_conftest"


def lay_out(project: Path, shape: str = "") -> None:
    """Copy the example with what adopters copy, and one of the guarantees' shapes over it."""
    shutil.copytree(BACKEND / "guarantees" / "example", project, dirs_exist_ok=True)
    copy_ours(project / "tests")
    if shape:
        shutil.copytree(BACKEND / "guarantees" / "shapes" / shape, project, dirs_exist_ok=True)


def copy_ours(tests: Path) -> None:
    """Copy what adopters copy into a folder of tests."""
    shutil.copy(REAL_CONFTEST, tests)
    # Another process may compile the folder at this moment, into files of such names.
    shutil.copytree(compiled(), tests / FOLDER, ignore=shutil.ignore_patterns("*.pyc.*"))


@cache
def compiled() -> Path:
    """Return the folder with its bytecode, which a copy of both is run by."""
    compileall.compile_dir(TESTS / FOLDER, quiet=1)
    return TESTS / FOLDER
