"""A picture of a run, docs/run.svg: `make picture` runs pytest on a small project and draws it.

Of its six tests two run again, because a transaction that is rolled back cannot show what they do.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from benchmark.example import lay_out
from benchmark.runs import BACKEND

PICTURE = BACKEND.parent / "docs" / "run.svg"
COMMAND = ("pytest", "-q", "tests")
TESTS = '''"""Tests of the users."""

import asyncio

from app.models import User


async def test_a_user_is_created(client):
    await client.post("/users/ada")

    assert (await client.get("/users/count")).json() == 1


async def test_a_user_is_gone_in_the_next_test(client):
    assert (await client.get("/users/count")).json() == 0


async def test_a_forgotten_commit_creates_nobody(client):
    await client.post("/forgotten/ada")

    assert (await client.get("/users/count")).json() == 0


async def test_an_email_is_taken_once(client):
    answers = await asyncio.gather(*(client.post("/users/ada") for _ in range(4)))

    assert sorted(each.status_code for each in answers) == [200, 409, 409, 409]


async def test_a_request_does_not_see_what_is_only_flushed(client, db):
    db.add(User(email="ada"))
    await db.flush()

    assert (await client.get("/users/count")).json() == 0


async def test_a_user_is_created_in_the_background(client):
    await client.post("/background/ada")

    assert (await client.get("/users/count")).json() == 1
'''


def printed() -> str:
    """Return what the run prints, with its colours."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        lay_out(project)
        (project / "tests" / "test_users.py").write_text(TESTS, encoding="utf-8")
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", *COMMAND, "--color=yes", "-oaddopts="],
            cwd=project,
            env=clean | {"COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout


def drawn(output: str) -> str:
    """Return the SVG of a terminal with this output."""
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {' '.join(COMMAND)}", style="bold"))
    console.print(Text.from_ansi(output))
    return console.export_svg(title="fastapi-conftest", theme=MONOKAI, unique_id="run")


if __name__ == "__main__":
    PICTURE.write_text(drawn(printed()), encoding="utf-8")
