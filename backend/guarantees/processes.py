"""Runs that are looked at while they run, or killed."""

import os
import signal
import subprocess
import time
from pathlib import Path

from guarantees.project import Project

# Says that it has begun, and goes on only when the other run is over.
WAITING = """
import asyncio
from pathlib import Path
import sqlalchemy as sa

async def test_it(client, db):
    name = await db.scalar(sa.text("SELECT current_database()"))
    Path("begun.txt").write_text(name)
    for _ in range(600):
        if Path("go_on.txt").exists():
            break
        await asyncio.sleep(0.05)
    assert (await client.post("/users/ada")).status_code == 200
"""
QUICK = "async def test_it(client): assert (await client.get('/users/count')).json() == 0"


def wait_for(path: Path) -> str:
    """Return what a file says, once it says something."""
    for _ in range(600):
        if path.exists() and (said := path.read_text()):
            return said
        time.sleep(0.05)
    raise TimeoutError(path)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a run with all its workers, as a power cut would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def kill_a_run(project: Project) -> None:
    """Leave a server behind, by killing a run in the middle of its test."""
    project.write("tests/test_it.py", WAITING)
    killed = project.start()
    wait_for(project.path / "begun.txt")
    kill(killed)


def runs(folder: Path) -> bool:
    """Tell whether an embedded server runs in this folder."""
    return [*folder.glob("*/postmaster.pid")] != []
