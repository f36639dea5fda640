"""Runs the CI workflow on this machine: `make workflow`, or `make workflow ARGS="lowest newest"`.

Each job gets a fresh clone of what is committed, and the first values of its matrix; shards run one
after another. Actions are left out, but for those that hand artifacts on. A service is what
TEST_DATABASE_URL names; without it, the job is skipped.
"""

import os
import re
import shutil
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


def transfer(step: dict[str, Any], values: dict[str, str], folder: Path, artifacts: Path) -> None:
    """Do what the actions for artifacts do; the other actions only prepare a runner."""
    options, (action, _) = step.get("with", {}), step["uses"].split("@")
    if action == "actions/upload-artifact":
        source, target = folder / options["path"], artifacts / fill(options["name"], values)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.mkdir()
            shutil.copy(source, target)
    if action == "actions/download-artifact":
        for source in artifacts.glob(options["pattern"]):
            shutil.copytree(source, folder / options["path"], dirs_exist_ok=True)


def run(
    job: dict[str, Any], values: dict[str, str], folder: Path, artifacts: Path, console: Console
) -> str:
    """Run the steps of a job until one fails; return the job's result."""
    if "services" in job and "TEST_DATABASE_URL" not in os.environ:
        return "skipped"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)  # noqa: S603, S607
    page = folder / "summary.md"
    inherited = {**environment(job, values), "GITHUB_STEP_SUMMARY": str(page)}
    for step in job["steps"]:
        if "run" not in step:
            transfer(step, values, folder, artifacts)
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


def matrix(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the values to run a job with: of all shards, as they belong together, or the first."""
    given = job.get("strategy", {}).get("matrix", {})
    if "shard" in given:
        return [{"shard": shard} for shard in given["shard"]]
    return [*given.get("include", []), {key: each[0] for key, each in given.items()}][:1]


def main() -> int:
    """Run the jobs that are named, or all; return 0 only if each of them succeeded."""
    jobs = YAML(typ="safe").load(WORKFLOW)["jobs"]
    console = Console(markup=False)
    results: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as artifacts:
        for name in sys.argv[1:] or jobs:
            job = jobs[name]
            needed = [results.get(need, "skipped") for need in job.get("needs", [])]
            ended = []
            for settings in matrix(job):
                values = {f"matrix.{key}": str(value) for key, value in settings.items()}
                values["join(needs.*.result, ' ')"] = " ".join(needed)
                console.rule(f"job {name} {settings or ''}", characters="=")
                with tempfile.TemporaryDirectory() as folder:
                    ended.append(run(job, values, Path(folder, "clone"), Path(artifacts), console))
            results[name] = next((each for each in ended if each != "success"), "success")
    for name, result in results.items():
        console.print(f"{name}: {result}")
    return 0 if set(results.values()) == {"success"} else 1


if __name__ == "__main__":
    sys.exit(main())
