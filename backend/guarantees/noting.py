"""Builders of inner tests that note when they run, and what they have noted."""

from guarantees.project import Project

IMPORTS = """
import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.db import engine as apps_engine
from app.models import User

def note(text):  # for the look from outside, whatever the run prints
    with Path("noted.txt").open("a") as file:
        file.write(text + chr(10))

async def end(db):
    await db.execute(sa.text("COMMIT"))
"""
THREE = """
async def test_1(db): note("1")

async def test_2(db):
    note("2")
    await end(db)

async def test_3(db): note("3")
"""
TWICE, ONCE = ["1", "2", "2", "3"], ["1", "2", "3"]


def write(project: Project, source: str) -> None:
    """Write the project's tests, behind the imports."""
    project.write("tests/test_it.py", IMPORTS + source)


def noted(project: Project) -> list[str]:
    """Return what the inner tests have noted since the last look."""
    path = project.path / "noted.txt"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    path.unlink(missing_ok=True)
    return lines
