"""Runs the CI workflow on this machine: `make workflow`, or `make workflow ARGS="lowest newest"`.

Each job gets a fresh clone of what is committed, and the first values of its matrix. Actions are
left out. A service is what TEST_DATABASE_URL names; without it, the job is skipped.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent.parent
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
# What `make workflow` sets and a runner does not.
OURS = ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHONPATH", "TEST_DATABASE_URL")


def fill(text: str, values: dict[str, str]) -> str:
    """Replace the expressions of GitHub; one that is not known is an error."""
    return re.sub(r"\$\{\{ (.+?) \}\}", lambda match: values[match[1]], text)


def environment(job: dict[str, Any], values: dict[str, str]) -> dict[str, str]:
    """Return what the steps of a job find in their environment."""
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    own = {name: fill(value, values) for name, value in job.get("env", {}).items()}
    if "services" in job:
        own["TEST_DATABASE_URL"] = os.environ["TEST_DATABASE_URL"]
    return {**kept, "CI": "true", **own}


def run(job: dict[str, Any], values: dict[str, str], folder: Path, console: Console) -> str:
    """Run the steps of a job until one fails; return the job's result."""
    if "services" in job and "TEST_DATABASE_URL" not in os.environ:
        return "skipped"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)  # noqa: S603, S607
    page = folder / "summary.md"
    inherited = {**environment(job, values), "GITHUB_STEP_SUMMARY": str(page)}
    for step in job["steps"]:
        if "run" not in step:
            continue
        console.rule(step["run"], align="left")
        own = {name: fill(value, values) for name, value in step.get("env", {}).items()}
        started = time.perf_counter()
        ended = subprocess.run(  # noqa: S603 - the workflow's own commands
            ["bash", "-eo", "pipefail", "-c", fill(step["run"], values)],  # noqa: S607
            cwd=folder,
            env={**inherited, **own},
            check=False,
        )
        seconds = time.perf_counter() - started
        console.print(f"exit code {ended.returncode} after {seconds:.0f} s: {step['run']}")
        if ended.returncode:
            return "failure"
    if page.exists():
        console.print(page.read_text(encoding="utf-8"))
    return "success"


def main() -> int:
    """Run the jobs that are named, or all; return 0 only if each of them succeeded."""
    jobs = YAML(typ="safe").load(WORKFLOW)["jobs"]
    console = Console(markup=False)
    results: dict[str, str] = {}
    for name in sys.argv[1:] or jobs:
        job = jobs[name]
        matrix = job.get("strategy", {}).get("matrix", {})
        (first, *_) = matrix.get("include") or [{key: each[0] for key, each in matrix.items()}]
        values = {f"matrix.{key}": str(value) for key, value in first.items()}
        needed = [results.get(need, "skipped") for need in job.get("needs", [])]
        values["join(needs.*.result, ' ')"] = " ".join(needed)
        console.rule(f"job {name}", characters="=")
        with tempfile.TemporaryDirectory() as folder:
            results[name] = run(job, values, Path(folder, "clone"), console)
    for name, result in results.items():
        console.print(f"{name}: {result}")
    return 0 if set(results.values()) == {"success"} else 1


if __name__ == "__main__":
    sys.exit(main())
