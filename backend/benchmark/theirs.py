"""Other people's projects: run by their own pytest, in trees in which nothing is left behind.

A tree is a revision of the project's repository, checked out into a temporary folder, or a folder
as it is. A checkout is a clone that shares the repository's objects: nothing is written into the
repository, so that there is nothing to remove from it, whatever happens.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from benchmark.interpreter import ask
from benchmark.runs import Run, Strategy, StrategyFailedError, bar, run

SCRIPTS = "Scripts/python.exe" if os.name == "nt" else "bin/python"
CHECKOUT = (
    "A checkout has what git tracks, and the .env files. If the tests need more, give a folder "
    "in the place of the revision."
)


class CannotRunError(Exception):
    """The project's tests cannot be run, and why."""


@dataclass(frozen=True)
class Tree:
    """A folder in which pytest is run, and the top of the repository or folder that it is in."""

    what: str
    folder: Path
    top: Path
    hint: str = ""


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return what stands before `--`, and pytest's own options behind it."""
    if "--" not in arguments:
        return arguments, []
    end = arguments.index("--")
    return arguments[:end], arguments[end + 1 :]


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a git command; where there is no git, it fails."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def as_it_is(folder: Path) -> Tree:
    """Return a folder as a tree."""
    top = git(folder, "rev-parse", "--show-toplevel").stdout.strip()
    return Tree(f"{folder}", folder.resolve(), Path(top or folder).resolve())


def tree(project: Path, which: str, temporary: Path) -> Tree:
    """Return a revision of the project, checked out into a new folder, or else a folder."""
    commit = git(project, "rev-parse", "--verify", "--quiet", f"{which}^{{commit}}")
    if not commit.returncode:
        return checkout(as_it_is(project), which, commit.stdout.strip(), temporary)
    if Path(which).is_dir():
        return as_it_is(Path(which))
    raise CannotRunError(f"{which} is neither a revision of {project} nor a folder.")


def checkout(project: Tree, revision: str, commit: str, temporary: Path) -> Tree:
    """Check a commit out, with the .env files that lie beside the project's own code."""
    top = temporary / project.top.name  # the name may be that of a package
    shared = ("--quiet", "--shared", "--no-checkout", str(project.top), str(top))
    for done in (git(project.top, "clone", *shared), git(top, "checkout", "--quiet", commit)):
        if done.returncode:
            raise CannotRunError(f"{revision} cannot be checked out: {done.stderr}")
    place = project.folder.relative_to(project.top)
    for folder in {project.top, project.folder}:
        for settings in folder.glob(".env*"):
            copy = top / settings.relative_to(project.top)
            if settings.is_file() and copy.parent.is_dir() and not copy.exists():
                shutil.copy(settings, copy)
    if not (top / place).is_dir():
        raise CannotRunError(f"{revision} has no folder {place}.")
    return Tree(f"{revision} ({commit[:8]})", top / place, top, CHECKOUT)


def interpreter(project: Path, given: Path | None) -> Path:
    """Return the interpreter that was given, or else that of the project's virtual environment."""
    folders = [project.resolve(), *project.resolve().parents]
    found = (folder / name / SCRIPTS for folder in folders for name in (".venv", "venv"))
    python = given or next((path for path in found if path.exists()), None)
    if python is None:
        raise CannotRunError(f"{project} has no .venv: say --python with the one that has pytest.")
    if not ask(python)["versions"]["pytest"]:
        raise CannotRunError(f"{python} has no pytest.")
    return python


@dataclass(frozen=True)
class Pytest:
    """A project's own pytest: its interpreter, options, and where it keeps what it keeps."""

    python: Path
    options: Sequence[str]
    temporary: Path

    def strategy(self, name: str, tree: Tree, tops: Sequence[Path]) -> Strategy:
        """Return the way to run it in a tree; the project may be installed from one of `tops`."""
        kept = self.temporary / f"{name}-keeps"
        kept.mkdir()
        cache = (
            f"{os.environ.get('PYTEST_ADDOPTS', '')} -o cache_dir={shlex.quote(f'{kept}/cache')}"
        )
        path = [*self.own_modules(tree, tops), os.environ.get("PYTHONPATH", "")]
        return Strategy(
            name,
            options=tuple(self.options),
            python=self.python,
            tests=None,
            folder=tree.folder,
            variables=(
                ("COVERAGE_FILE", str(kept / ".coverage")),
                ("PYTEST_ADDOPTS", cache.strip()),
                ("PYTHONDONTWRITEBYTECODE", ""),
                ("PYTHONPYCACHEPREFIX", str(self.temporary / "bytecode")),
                ("PYTHONPATH", os.pathsep.join(path)),
            ),
        )

    def own_modules(self, tree: Tree, tops: Sequence[Path]) -> Iterator[str]:
        """Yield where the tree has what the interpreter would take from another one.

        A project that is installed in editable mode is found where it was installed from: without
        these, a checkout's tests would test the code beside it.
        """
        for path in map(Path, ask(self.python)["path"]):
            for top in tops:
                if path.resolve().is_relative_to(top) and "site-packages" not in path.parts:
                    own = tree.top / path.resolve().relative_to(top)
                    if own.is_dir():
                        yield str(own)


def collect(strategy: Strategy, tree: Tree, console: Console) -> None:
    """Let pytest collect the tests of a tree, and refuse one where it cannot.

    It takes seconds where a run may take minutes, and leaves bytecode of everything that the tests
    import, so that no run pays for it.
    """
    with bar(console) as progress:
        collecting = replace(strategy, options=(*strategy.options, "--collect-only"))
        task = progress.add_task(f"collecting: {strategy.name}", total=None)
        result = run(collecting, progress, task)
    if result.exit_code not in (0, 1) or not result.collected:
        message = refusal(collecting, result, "cannot start")
        raise CannotRunError(f"{message}\n{tree.hint}".rstrip())


def usable(strategy: Strategy, result: Run, _wanted: set[str] | None = None) -> None:
    """Refuse a run in which pytest did not come to its end, or in which no test passed.

    Tests that fail are outcomes like others. Without a run of both sides there is nothing to
    compare, whereas parallel is one column.
    """
    if result.exit_code in (0, 1) and result.passed:
        return
    message = refusal(strategy, result, "has passed no test" if result.tests else "did not run")
    raise StrategyFailedError(message) if strategy.workers else CannotRunError(message)


def refusal(strategy: Strategy, result: Run, what: str) -> str:
    """Return what is wrong with a run, its command and the last lines of its output."""
    typed = shlex.join([str(strategy.python.absolute()), "-m", "pytest", *strategy.options])
    ended = f"pytest ended with exit code {result.exit_code}"
    return f"{strategy.name} {what}, {ended}:\n$ cd {strategy.folder}\n$ {typed}\n{result.end(20)}"
