"""A small project that uses copies of the real conftest and its folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from benchmark.example import FOLDER, lay_out
from guarantees.servers import Database

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CONFTEST = "tests/conftest.py"
# What a run of the inner project must not inherit from the run that it is tested by.
# CI among them: it makes pytest print each message twice.
ISOLATED = (
    "CI",
    "PYTHONPATH",
    "PYTEST_ADDOPTS",
    "PYTEST_CURRENT_TEST",
    "PYTEST_VERSION",
    "PYTEST_XDIST_TESTRUNUID",
    "PYTEST_XDIST_WORKER",
    "PYTEST_XDIST_WORKER_COUNT",
    "TEST_DATABASE_FOLDER",
    "TEST_DATABASE_URL",
)
# Bytecode is known by second and size: a file rewritten at once would run as it was before.
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
HEEDED_IN_A_FORK = {"PYTHONDONTWRITEBYTECODE", "PYTHONSAFEPATH"}
ISOLATE = "fc.isolate(application, sessions=[SessionLocal], metadata=Base.metadata)\n"


class Project:
    """A project with an application, the real conftest and the tests that are written."""

    def __init__(self, path: Path, database: Database) -> None:
        """Lay the project out in a new folder."""
        self.path = path
        lay_out(self.path)
        self.environment = {"TEST_DATABASE_URL": database.url, **NO_BYTECODE}

    def write(self, path: str, source: str) -> None:
        """Write one of the project's files."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source, encoding="utf-8")

    def read(self, path: str) -> str:
        """Return what one of the project's files says."""
        return (self.path / path).read_text(encoding="utf-8")

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace text that must be there exactly once."""
        source = self.read(path)
        if source.count(old) != 1:
            raise ValueError(f"{path} holds {old!r} {source.count(old)} times, not once")
        self.write(path, source.replace(old, new))

    def in_folder(self, room: str, old: str, new: str) -> None:
        """Replace text in a room of the folder that adopters never edit."""
        self.replace(f"tests/{FOLDER}/{room}.py", old, new)

    def isolate(self, arguments: str, before: str = "") -> None:
        """Give `isolate` further arguments, and the conftest lines that stand before the call."""
        self.replace(CONFTEST, "\nfc.isolate(", f"\n{before}\nfc.isolate(")
        self.replace(CONFTEST, "metadata=Base.metadata", f"metadata=Base.metadata, {arguments}")

    def use_driver(self, driver: str) -> None:
        """Have the application use another driver, and the tests, too."""
        self.replace("app/db.py", "postgresql+asyncpg", f"postgresql+{driver}")

    def app_engine(self, lines: str, options: str = "") -> None:
        """Have the application make its engine with these options, and do this with it."""
        made = '://nobody@127.0.0.1:1/production")\n'
        self.replace("app/db.py", made, made.replace(")\n", f", {options})\n{lines}\n"))
        self.write("app/db.py", f"import sqlalchemy as sa\n{self.read('app/db.py')}")

    def extend_schema(self, schema: str) -> None:
        """Have the schema consist of these statements, too."""
        self.write("schema.sql", schema)
        create = (
            "def create_schema(connection):\n"
            "    Base.metadata.create_all(connection)\n"
            "    for statement in Path('schema.sql').read_text().split(';\\n'):\n"
            "        connection.exec_driver_sql(statement)\n"
        )
        self.isolate("create_schema=create_schema, schema_files=[Path('schema.sql')]", create)

    def variables(self) -> dict[str, str]:
        """Return the variables of a shell that knows nothing of the run around it."""
        kept = {name: value for name, value in os.environ.items() if name not in ISOLATED}
        return kept | self.environment

    def run(self, *arguments: str, folder: Path | None = None) -> pytest.RunResult:
        """Run pytest as an adopter would, in a fork of a process that has its libraries at hand.

        folder: where it is called, if not in that of the project.
        """
        if any(name.startswith("PYTHON") for name in self.environment.keys() - HEEDED_IN_A_FORK):
            return self.run_in_new_process(*arguments, folder=folder)
        output, errors = self.path / "stdout", self.path / "stderr"
        request: dict[str, object] = {
            "folder": str(folder or self.path),
            "environment": self.variables(),
            "arguments": [*arguments, f"--basetemp={self.path / 'basetemp'}"],
            "input": os.devnull,
            "output": str(output),
            "errors": str(errors),
        }
        started = time.perf_counter()
        code = answer(request)
        return result(code, output.read_text(), errors.read_text(), started)

    def run_in_new_process(self, *arguments: str, folder: Path | None = None) -> pytest.RunResult:
        """Run pytest where what the interpreter reads when it starts is part of the test."""
        started = time.perf_counter()
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "pytest", *arguments, f"--basetemp={self.path / 'basetemp'}"],
            cwd=folder or self.path,
            env=self.variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return result(done.returncode, done.stdout, done.stderr, started)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start pytest in a process group of its own, and return at once."""
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "pytest", "-rP", "-p", "no:cacheprovider", *arguments],
            cwd=self.path,
            env=self.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def result(code: int, output: str, errors: str, started: float) -> pytest.RunResult:
    """Return what a run did, and print it for the case that the outer test fails."""
    print(output, errors)  # noqa: T201 - pytest shows it
    taken = time.perf_counter() - started
    return pytest.RunResult(code, output.splitlines(), errors.splitlines(), taken)


@cache
def fork_server() -> subprocess.Popen[str]:
    """Return the process that forks for each run; it ends with this one."""
    kept = {name: value for name, value in os.environ.items() if name not in ISOLATED}
    return subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, HERE / "fork_server.py"],
        env=kept | NO_BYTECODE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(request: dict[str, object]) -> int:
    """Have the fork server run pytest; return its exit code."""
    server = fork_server()
    assert server.stdin  # noqa: S101 - for mypy: they are pipes
    assert server.stdout  # noqa: S101
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


def code(page: Path, language: str) -> list[str]:
    """Return the code blocks of a language on a page of the docs."""
    blocks = rf"^```{language}\n(.*?)^```$"
    return re.findall(blocks, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
