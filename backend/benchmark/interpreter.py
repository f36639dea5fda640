"""What ran the tests: the machine, the interpreter, and the versions of its packages."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.runs import Strategy, environment

PACKAGES = (
    *("pytest", "pytest-asyncio", "pytest-xdist", "pytest-zygote", "pytest-cov"),
    *("sqlalchemy", "sqlmodel", "asyncpg", "psycopg", "fastapi", "httpx"),
)
# What an interpreter says of itself; the packages are its arguments.
ASK = """
import json, platform, sys
from importlib.metadata import PackageNotFoundError, version
def number(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
versions = {name: number(name) for name in sys.argv[1:]}
print(json.dumps({"python": platform.python_version(), "path": sys.path, "versions": versions}))
"""


class NoInterpreterError(Exception):
    """What was given as an interpreter is none."""


@cache
def ask(python: Path) -> dict[str, Any]:
    """Return the version of an interpreter, those of its packages, and where it looks for modules.

    What this process has on PYTHONPATH is no part of the answer where it is this repository.
    """
    path = environment(Strategy("", python=python), Path())
    asked = [str(python.absolute()), "-c", ASK, *PACKAGES]
    result = subprocess.run(  # noqa: S603 - the interpreter is the caller's
        asked, env=path, cwd=tempfile.gettempdir(), capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise NoInterpreterError(f"{python} is no Python that can be used:\n{result.stderr}")
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


def circumstances(python: Path = Path(sys.executable)) -> dict[str, Any]:
    """Return the machine, and the versions of the interpreter that ran the tests."""
    answer = ask(python)
    return {
        "machine": {
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "python": answer["python"],
        },
        "versions": {name: number for name, number in answer["versions"].items() if number},
    }
