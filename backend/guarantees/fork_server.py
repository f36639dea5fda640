"""Run pytest again and again, each time in a fork of a process that has its libraries at hand.

Starting Python and importing pytest, SQLAlchemy and FastAPI takes longer than most runs of an inner
project. The libraries are imported once, here; nothing of the project or of the folder under test
is. It reads a request a line from standard input, and answers each with the exit code.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from typing import Any

LIBRARIES = (
    "anyio._backends._asyncio",
    "anyio.pytest_plugin",
    "asyncpg",
    "fastapi",
    "httpx",
    "psycopg",
    "psycopg2",
    "pwdlib.hashers.argon2",
    "pydantic.v1",
    "pytest_asyncio.plugin",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.ext.asyncio",
    "unittest.mock",
)


def become(request: dict[str, Any]) -> None:
    """Be the process that `python -m pytest` would be."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, name in enumerate(("input", "output", "errors")):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        file = os.open(request[name], flags, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.argv = ["pytest", *request["arguments"]]
    sys.path[0] = request["folder"]
    if "PYTHONSAFEPATH" in os.environ:  # as the command `pytest`, which knows no folder
        del sys.path[0]
    sys.dont_write_bytecode = True


def main() -> None:
    """Serve until standard input ends."""
    import pytest  # noqa: PLC0415 - after this file's folder has left sys.path

    for library in LIBRARIES:
        importlib.import_module(library)
    for plugin in ("anyio", "pytest_asyncio"):
        # pytest would warn that it came too late to rewrite the asserts of these.
        sys.modules[plugin].__doc__ = "PYTEST_DONT_REWRITE"
    gc.freeze()
    for line in sys.stdin:
        if pid := os.fork():
            _, status = os.waitpid(pid, 0)
            sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
            sys.stdout.flush()
        else:
            become(json.loads(line))
            sys.exit(pytest.main())  # so that what is registered for the end is run


if __name__ == "__main__":
    main()
