"""The CI workflow runs what a developer can run, and no job can fail unnoticed."""

import html
import re
import subprocess
from typing import Any

import pytest

from ci import picture
from ci.summary import summary
from guarantees.pages import TARGETS, text
from guarantees.project import ROOT

yaml = pytest.importorskip("ruamel.yaml", reason="only the environment of `make lint` has it")
JOBS: dict[str, Any] = yaml.YAML(typ="safe").load(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]


@pytest.mark.parametrize("name", sorted(JOBS.keys() - {"gate"}))
def test_a_job_calls_makefile_targets_only(name: str) -> None:
    commands = [step["run"].split() for step in JOBS[name]["steps"] if "run" in step]

    assert commands != []
    assert {command[0] for command in commands} == {"make"}
    assert {command[1] for command in commands} <= set(TARGETS)


def test_the_gate_waits_for_every_other_job() -> None:
    assert {*JOBS["gate"]["needs"], "gate"} == JOBS.keys()


def test_a_python_that_is_too_old_is_told() -> None:
    command = ["make", "audit", "PYTHON=false"]

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - no input

    assert "Python 3.11 or newer is needed; type: make audit PYTHON=python3.11" in result.stderr


def test_the_summary_has_a_table_and_a_chart_of_all_strategies() -> None:
    row = {"fixture_share": 0.5, "ddl": 7, "connections": 3}
    figures = {
        "tests": 10,
        "strategies": {
            "before": {
                "way": "one process",
                "wall_s": [3, 4],
                "median_s": 3.5,
                "ms_per_test": 350,
                **row,
            },
            "parallel": {
                "way": "-n 2",
                "wall_s": [1, 2],
                "median_s": 1.75,
                "ms_per_test": 175,
                **row,
            },
        },
        "machine": {"python": "3.14.0", "cpus": 2, "system": "Linux"},
        "versions": {"pytest": "9.0.0"},
    }

    lines = summary(figures).splitlines()

    assert "| before | 3.50 | 3.00 | 4.00 | 1.0 x | 350.0 | 50% | 7 | 3 |" in lines
    assert "| parallel -n 2 | 1.75 | 1.00 | 2.00 | 2.0 x | 175.0 | 50% | 7 | 3 |" in lines
    assert '    x-axis ["before", "parallel -n 2"]' in lines
    assert "    bar [3.5, 1.75]" in lines


def told(svg: str) -> list[str]:
    """Return the lines in a picture that say which tests ran again, and why."""
    lines = re.findall(r">([^<\n]*)</text>", html.unescape(svg).replace("\xa0", " "))
    return lines[lines.index("    real_commits=[") - 2 : lines.index("    ],") + 1]


def test_the_picture_shows_what_such_a_run_prints() -> None:
    drawn = picture.drawn(picture.printed())

    assert told(drawn) == told(text(picture.PICTURE)), "make picture"
