"""Which ways of isolating tests show what production does: the tests in rivals/fidelity.

Each test, or pair of tests, has a run of its own, so that no other can spoil it.
"""

from __future__ import annotations

import ast
from pathlib import Path

from rich.console import Console

from benchmark.runs import BACKEND, Run, Strategy, rounds

RIVALS = BACKEND / "benchmark" / "rivals"
SUITE = RIVALS / "fidelity"


def behaviours() -> dict[str, str]:
    """Return what production does, by the name of its test, or of its pair without the numbers."""
    source = (SUITE / "test_fidelity.py").read_text(encoding="utf-8")
    functions = [each for each in ast.parse(source).body if isinstance(each, ast.AsyncFunctionDef)]
    said = {each.name.removesuffix("_1"): ast.get_docstring(each) for each in functions}
    return {
        name: text.rstrip(".") for name, text in said.items() if text and name.startswith("test_")
    }


def fidelity(rival: str, python: Path, console: Console) -> dict[str, bool]:
    """Return which of the tests pass under a rival."""
    strategies = {
        name: Strategy(
            f"{rival}: {name}",
            (RIVALS / f"{rival}.py",),
            options=("--noconftest", "-k", name),
            python=python,
            tests=SUITE,
        )
        for name in behaviours()
    }
    done = rounds([*strategies.values()], 1, console, accepted=lambda *_: None)
    return {name: passes(done.runs[strategy][0]) for name, strategy in strategies.items()}


def passes(run: Run) -> bool:
    """Tell whether a run has passed all its tests."""
    return run.exit_code == 0 and len(run.passed) == run.collected > 0
