"""The benchmark's arithmetic on recorded input, and what it says of a strategy that fails."""

import io
import json
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmark import profile, runs, sheets
from benchmark.fidelity import RIVALS, SUITE, behaviours
from benchmark.strategies import LADDER, STRATEGIES
from guarantees.project import HERE, ROOT, Project
from guarantees.servers import Database

RECORD = """
{"tests": 2}
{"test": "a", "outcome": "passed", "setup": 0.25, "call": 0.5, "teardown": 0.25}
{"test": "b", "outcome": "passed", "setup": 0.25, "call": 0.5, "teardown": 0.25}
{"counters": {"ddl": 7, "connections": 3}}
"""
FAILED = RECORD.replace('"b", "outcome": "passed"', '"b", "outcome": "failed"')
PAGE = HERE.parent.parent / "docs" / "benchmarks" / "README.md"
README = ROOT / "README.md"
STRATEGY = runs.Strategy("this", ())
NOW = "test_now_is_later_in_the_next_transaction"


def recorded(tmp_path: Path, record: str = RECORD, *, wall_s: float = 4, exit_code: int = 0) -> Any:
    """Return a run of which the recorder wrote this."""
    file = tmp_path / "record.jsonl"
    file.write_text(record.strip(), encoding="utf-8")
    run = runs.Run(wall_s, exit_code, "the output")
    runs.read_record(run, file)
    return run


def test_the_figures_of_a_strategy_are_medians_of_its_runs(tmp_path: Path) -> None:
    walls = [recorded(tmp_path, wall_s=seconds) for seconds in (4, 2, 9)]

    figures = runs.figures(STRATEGY, walls)

    assert figures == {
        "passed": 2,
        "way": "one process",
        "wall_s": [4, 2, 9],
        "median_s": 4,
        "ms_per_test": 2000,
        "fixture_share": 0.5,
        "fixtures_ms": 500,
        "ddl": 7,
        "connections": 3,
    }


def test_the_time_left_is_the_sum_of_the_runs_to_come(tmp_path: Path) -> None:
    slow, fast, broken = (runs.Strategy(name, ()) for name in ("slow", "fast", "broken"))
    done = runs.Rounds(
        {slow: [recorded(tmp_path, wall_s=30)], fast: [recorded(tmp_path, wall_s=2)], broken: []},
        {broken: "why"},
    )

    left = runs.time_left(done, 3)

    assert left == ", 64 s left"


@pytest.mark.parametrize(
    ("record", "exit_code", "problem"),
    [
        pytest.param(RECORD, 1, "this failed with exit code 1", id="exit code"),
        pytest.param(FAILED, 0, "this failed", id="failed test"),
        pytest.param('{"tests": 0}', 0, "this failed", id="no test"),
        pytest.param(RECORD.replace('"b"', '"a"'), 0, "missing: ['b']; added: []", id="fewer"),
        pytest.param(RECORD.replace('"b"', '"c"'), 0, "missing: ['b']; added: ['c']", id="other"),
    ],
)
def test_a_run_that_does_not_pass_the_same_tests_is_refused(
    tmp_path: Path, record: str, exit_code: int, problem: str
) -> None:
    run = recorded(tmp_path, record, exit_code=exit_code)

    with pytest.raises(runs.StrategyFailedError, match=re.escape(problem)):
        runs.check(STRATEGY, run, {"a", "b"})


def test_a_strategy_that_fails_has_no_figures_and_is_not_run_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("pytest.ini", "[pytest]\n")
    project.write("works.py", "")
    project.write(
        "breaks.py",
        """
def pytest_configure():
    with open("runs.txt", "a") as file: file.write("run ")

def pytest_runtest_call(item):
    assert item.name != "test_b"
""",
    )
    project.write("tests/test_it.py", "def test_a(): pass\ndef test_b(): pass")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    works, breaks = (
        runs.Strategy(name, (project.path / f"{name}.py",), tests=None, folder=project.path)
        for name in ("works", "breaks")
    )

    done = runs.rounds([works, breaks], 2, Console(file=io.StringIO()))

    assert len(done.runs[works]) == 2
    assert (project.path / "runs.txt").read_text(encoding="utf-8") == "run "
    assert [*done.figures()] == ["works"]
    assert "breaks failed with exit code 1" in done.problems[breaks]


@pytest.mark.parametrize(
    ("workers", "forked"),
    [
        pytest.param(0, False, id="one process"),
        pytest.param(2, False, id="xdist"),
        pytest.param(2, True, id="forked"),
    ],
)
def test_what_every_process_has_counted_is_added_up(
    project: Project, monkeypatch: pytest.MonkeyPatch, workers: int, forked: bool
) -> None:
    project.write("pytest.ini", "[pytest]\n")
    project.write(
        "tests/test_it.py",
        """
import pytest
from sqlalchemy import create_engine, text

@pytest.mark.parametrize("number", range(6))
def test_it(number):
    with create_engine("sqlite://").connect() as connection:
        connection.execute(text("CREATE TABLE a (b int)"))
""",
    )
    monkeypatch.delenv("PYTHONPATH", raising=False)
    options = ("--noconftest",)
    way = runs.Strategy("", (), workers, forked, options, tests=None, folder=project.path)

    done = runs.rounds([way], 1, Console(file=io.StringIO()))

    assert done.runs[way][0].counters == {"connections": 6, "ddl": 6}


def test_a_failed_strategy_is_in_the_table_without_a_time() -> None:
    sheet, _ = sheets.of("strategies", {"figures": {}, "failed": {"TRUNCATE": "why"}})

    assert sheet.rows == [("TRUNCATE", "failed", "", "", "", "", "", "")]


def test_the_ladder_says_what_each_step_gains() -> None:
    names = dict(LADDER)
    steps = {"as found": 120.0, "cheap password hashing": 40.0, "rollback": 5.0}
    figures = {names[step]: {"median_s": wall} for step, wall in steps.items()}

    ladder = sheets.ladder(figures)

    assert ladder.rows == [
        ("as found", "120.00", "1.0 x", "1.0 x"),
        ("cheap password hashing", "40.00", "3.0 x", "3.0 x"),
        ("rollback", "5.00", "8.0 x", "24.0 x"),
    ]


def test_the_ladder_goes_from_truncate_by_delete_to_rollback() -> None:
    steps = [step for step, _ in LADDER]

    assert steps[steps.index("schema once") :] == ["schema once", "DELETE", "rollback", "parallel"]


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("drop and create", 1),
        ("TRUNCATE", 0),
        ("DELETE", 0),
        ("clone a test", 0),
        ("this conftest", 0),
    ],
)
def test_only_the_old_conftest_pays_for_an_override_of_get_db(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, name: str, overrides: int
) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", database.url)
    file = tmp_path / "test_it.py"
    file.write_text(f"def test_it(app): assert len(app.dependency_overrides) == {overrides}")
    (strategy,) = (each for each in STRATEGIES if each.name == name)

    done = runs.rounds([replace(strategy, tests=file)], 1, Console(file=io.StringIO()))

    assert done.problems == {}


def test_parallel_pays_from_where_its_line_crosses_that_of_one_process() -> None:
    walls = [
        {"tests": tests, "way": way, "wall_s": start + tests * per_test}
        for way, start, per_test in (
            ("one process", 1.0, 0.02),
            ("-n 2", 3.0, 0.01),
            ("-n 8", 9.0, 0.02),
        )
        for tests in (100, 1000)
    ]

    lines = runs.lines(walls)

    assert lines["one process"]["ms_per_test"] == pytest.approx(20)
    assert lines["-n 2"]["start_s"] == pytest.approx(3)
    assert lines["-n 2"]["pays_from"] == pytest.approx(200)
    assert lines["-n 8"]["pays_from"] is None


def test_advice_is_on_the_slowest_first_and_on_few() -> None:
    seconds = {"tests": 30, "DDL": 21, "SQL": 20, "fixtures": 15, "requests to the app": 12}
    recorded_costs = {name: {"calls": 1, "seconds": n} for name, n in seconds.items()}
    costs = profile.costs({"costs": {**recorded_costs, "sleeping": {"calls": 1, "seconds": 2}}})

    lines = profile.advice(costs)

    assert [line.partition(":")[0] for line in lines] == ["DDL, 21%", "SQL, 20%", "fixtures, 15%"]


def test_every_advice_leads_to_a_heading_that_explains_it() -> None:
    page = (HERE.parent.parent / "docs" / "slow-tests.md").read_text(encoding="utf-8")

    assert set(profile.ADVICE) == set(re.findall(r"^## (.*)$", page, re.MULTILINE))


def test_the_pages_show_the_figures_of_a_file() -> None:
    text, readme = (page.read_text(encoding="utf-8") for page in (PAGE, README))
    files = PAGE.parent.glob("*.json")
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files]

    filled = [
        (sheets.filled_with(result, text), sheets.readme_filled_with(result, readme))
        for result in results
    ]

    assert (text, readme) in filled


@pytest.mark.parametrize(
    ("rival", "shown"), [("ours", behaviours().keys() - {NOW}), ("recipe", set())]
)
def test_the_table_in_the_readme_is_true(
    rival: str, shown: set[str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", database.url)
    options = ("--noconftest",)
    suite = runs.Strategy(rival, (RIVALS / f"{rival}.py",), options=options, tests=SUITE)

    done = runs.rounds([suite], 1, Console(file=io.StringIO()), accepted=lambda *_: None)

    tests = done.runs[suite][0].tests
    failed = {
        name
        for test in tests.keys() - done.runs[suite][0].passed
        for name in behaviours()
        if name in test
    }
    assert len(tests) > len(behaviours())
    assert behaviours().keys() - failed == shown


def profiled(project: Project) -> str:
    """Return what `make profile` prints of a project that is not ours."""
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "benchmark.profile", project.path, "--python", sys.executable],
        cwd=HERE.parent,
        env={**project.environment, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_the_profile_of_a_suite_that_hashes_says_so_first(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\naddopts = -n 2\n")
    project.write(
        "tests/test_it.py",
        """
import asyncio, hashlib, time

async def test_it(client, db):
    for number in range(8):
        hashlib.scrypt(b"secret", salt=b"salt", n=2**17, r=8, p=1, maxmem=2**28)
    await asyncio.sleep(0.1)
    await client.get("/users/count")
""",
    )

    printed = profiled(project)

    assert re.search(r"\n1\. password hashing, \d+%: ", printed), printed
    calls = dict(re.findall(r"│ ([a-zA-Z ]+?) +│ +(\d+) │", printed))
    assert calls["password hashing"] == "8"
    assert calls["requests to the app"] == "1"
    assert calls["tests"] == "1"


def test_the_password_of_a_connection_belongs_to_connecting() -> None:
    profile = runpy.run_path(str(runs.PLUGINS / "conftest_profiler.py"))["Profile"]()

    with profile.frame("connecting"), profile.frame("password hashing"):
        pass

    assert profile.calls == {"connecting": 1}


def test_a_second_in_a_request_counts_once(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\nasyncio_mode = auto\n")
    project.write(
        "tests/test_it.py",
        """
import time
from app.main import app

@app.get("/sleep")
def sleep(): time.sleep(1)

async def test_it(client):
    await client.get("/sleep")
""",
    )

    printed = profiled(project)

    seconds = dict(re.findall(r"│ ([a-zA-Z ]+?) +│ +\d+ │ +([\d.]+) │", printed))
    assert float(seconds["sleeping"]) == pytest.approx(1, abs=0.05)
    assert float(seconds["requests to the app"]) < 0.5
    assert float(seconds["tests"]) < 0.5
