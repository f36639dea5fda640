"""The comparison on other people's projects: their tests, under their old conftest and the new."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from guarantees.conftest import HERE, Project

OLD = """
import os
import pytest_asyncio
from httpx import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import create_async_engine
from app.db import Base, SessionLocal
from app.main import app
from app.roles import setup_roles

@pytest_asyncio.fixture
async def client():
    engine = create_async_engine(os.environ["OLD_URL"])
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    SessionLocal.configure(bind=engine)
    async with SessionLocal() as session:
        await setup_roles(session)
    yield AsyncClient(transport=ASGITransport(app), base_url="http://test")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()
"""
TESTS = """
import pytest

@pytest.mark.parametrize("number", range(5))
async def test_it(client, number):
    assert (await client.post("/users/ada")).status_code == 200
    assert (await client.get("/users/count")).json() == 1
"""


@pytest.fixture(autouse=True)
def old_database(project: Project, spare_database: str) -> None:
    """The database of the old conftest; autouse, because every comparison needs it."""
    project.environment["OLD_URL"] = spare_database


def compare(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the comparison on a project that is not ours, from our own folder."""
    project.write("pytest.ini", "[pytest]\nasyncio_mode = auto\n")
    project.write("old.py", OLD)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "benchmark.compare",
        "--rounds",
        "1",
        "--workers",
        "2",
    ]
    paths: list[str | Path] = [
        "--before",
        project.path / "old.py",
        "--after",
        project.path / "tests/conftest.py",
    ]
    return subprocess.run(  # noqa: S603 - our own command
        [*command, *paths, *arguments, project.path / "tests"],
        cwd=HERE.parent,
        env={
            **os.environ,
            **project.environment,
            "PYTHONPATH": str(HERE.parent),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_another_project_gets_its_own_table(project: Project) -> None:
    project.write("tests/test_it.py", TESTS)

    result = compare(project, "--json", str(project.path / "figures.json"))

    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads((project.path / "figures.json").read_text(encoding="utf-8"))
    assert figures["tests"] == 5
    assert [row["passed"] for row in figures["strategies"].values()] == [5, 5, 5]
    assert figures["strategies"]["before"]["ddl"] > figures["strategies"]["after"]["ddl"]
    before, after = (figures["strategies"][name]["median_s"] for name in ("before", "after"))
    assert figures["ratio"] == pytest.approx(before / after, abs=0.01)
    assert "What to fix next, by one run under the profiler:\n1. " in result.stdout


def test_a_test_that_fails_is_never_fast(project: Project) -> None:
    fails = "async def test_fails(client):\n    assert type(client._transport).__name__ == 'None'\n"
    project.write("tests/test_it.py", TESTS + fails)

    result = compare(project)

    assert result.returncode == 1
    assert "before failed with exit code 1:" in result.stdout
    assert "test_fails" in result.stdout


def test_tests_that_differ_are_named(project: Project) -> None:
    differs = "import sys\nif 'old' in sys.modules:\n    async def test_old_only(client): pass\n"
    project.write("tests/test_it.py", TESTS + differs)

    result = compare(project)

    assert result.returncode == 1
    assert "after did not run the same tests; missing: [" in result.stdout.replace("\n", " ")
    assert "test_old_only" in result.stdout
