"""Other people's projects: run by their own pytest, in temporary copies of their trees.

A tree is a revision of the project's repository, or a folder as it is. A revision is checked out in
a clone that shares the repository's objects, a folder is copied. Nothing is ever written into what
is theirs, so that there is nothing to remove from it, whatever the tests do and however they end.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from benchmark.interpreter import ask
from benchmark.runs import Run, Strategy, StrategyFailedError, bar, run

SCRIPTS = "Scripts/python.exe" if os.name == "nt" else "bin/python"
# What a copy of a folder leaves out, besides environments and caches, which mark themselves.
LEFT_OUT = {".git", "__pycache__", "node_modules"}
MARKS = ("pyvenv.cfg", "CACHEDIR.TAG")
PARALLEL = "parallel"
CHECKOUT = (
    "A checkout has what git tracks, and the .env files. If the tests need more, give a folder "
    "in the place of the revision."
)


class CannotRunError(Exception):
    """The project's tests cannot be run, and why."""


@dataclass(frozen=True)
class Tree:
    """A folder in which pytest is run, the top of the copy that it is in, and what was copied.

    content: git's name of what is in it, or nothing where git has none.
    """

    what: str
    folder: Path
    top: Path
    origin: Path
    content: str
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


def top_of(folder: Path) -> Path:
    """Return the top of the repository that a folder is in, or else the folder."""
    top = git(folder, "rev-parse", "--show-toplevel").stdout.strip()
    return Path(top or folder).resolve()


def tree(project: Path, which: str, temporary: Path) -> Tree:
    """Return a revision of the project, or else a folder, in a temporary folder."""
    commit = git(project, "rev-parse", "--verify", "--quiet", f"{which}^{{commit}}")
    if not commit.returncode:
        return checkout(project, which, commit.stdout.strip(), temporary)
    if Path(which).is_dir():
        return copied(Path(which), temporary)
    raise CannotRunError(f"{which} is neither a revision of {project} nor a folder.")


def checkout(project: Path, revision: str, commit: str, temporary: Path) -> Tree:
    """Check a commit out, with the .env files that lie beside the project's own code."""
    origin = top_of(project)
    top = temporary / origin.name  # the name may be that of a package
    shared = ("--quiet", "--shared", "--no-checkout", str(origin), str(top))
    for done in (git(origin, "clone", *shared), git(top, "checkout", "--quiet", commit)):
        if done.returncode:
            raise CannotRunError(f"{revision} cannot be checked out: {done.stderr}")
    place = project.resolve().relative_to(origin)
    if not (top / place).is_dir():
        raise CannotRunError(f"{revision} has no folder {place}.")
    for folder in {Path(), place}:
        for settings in (origin / folder).glob(".env*"):
            if settings.is_file() and not (top / folder / settings.name).exists():
                shutil.copy(settings, top / folder)
    content = content_of(project, commit)
    return Tree(f"{revision} ({commit[:8]})", top / place, top, origin, content, CHECKOUT)


def copied(folder: Path, temporary: Path) -> Tree:
    """Copy a folder, with all of the repository that it is in."""
    origin = top_of(folder)
    top = temporary / origin.name
    with suppress(shutil.Error):  # what cannot be read, such as a database's data, no test reads
        shutil.copytree(origin, top, symlinks=True, ignore=left_out)
    changed = git(folder, "--no-optional-locks", "status", "--porcelain", str(origin)).stdout
    content = "" if changed else content_of(folder, "HEAD")
    return Tree(f"{folder}", top / folder.resolve().relative_to(origin), top, origin, content)


def content_of(folder: Path, commit: str) -> str:
    """Return git's name of what a commit has, seen from a folder; nothing where there is no git."""
    place = git(folder, "rev-parse", "--show-prefix").stdout
    return git(folder, "rev-parse", f"{commit}^{{tree}}").stdout + place


def refuse_the_same(project: Path, before: Tree, after: Tree) -> None:
    """Refuse two trees that are the same, and say what to type."""
    if not before.content or before.content != after.content:
        return
    adds = ("--diff-filter=A", "--", ":(top,glob)**/fastapi_conftest/__init__.py")
    added = git(project, "log", "-1", "--format=%h", *adds).stdout.strip()
    raise CannotRunError(
        f"{before.what} and {after.what} are the same: somebody has committed the change already. "
        f'Name the revision before it:\nmake compare ARGS="{project} --before {added or "HEAD"}~1"'
    )


def left_out(folder: str, names: list[str]) -> list[str]:
    """Return what is not copied: it is large, or made anew, or no file at all."""
    return [
        name
        for path, name in ((Path(folder, name), name) for name in names)
        if name in LEFT_OUT
        or any((path / mark).exists() for mark in MARKS)
        or not (path.is_file() or path.is_dir() or path.is_symlink())
    ]


def interpreter(project: Path, given: Path | None) -> Path:
    """Return the interpreter that was given, or else that of the project's virtual environment."""
    folder, top = project.resolve(), top_of(project)
    folders = [each for each in (folder, *folder.parents) if each.is_relative_to(top)]
    found = (each / name / SCRIPTS for each in folders for name in (".venv", "venv"))
    python = given or next((path for path in found if path.exists()), None)
    if python is None:
        raise CannotRunError(f"{project} has no .venv: say --python with the one that has pytest.")
    if not ask(python)["versions"]["pytest"]:
        raise CannotRunError(f"{python} has no pytest.")
    return python


@dataclass(frozen=True)
class Pytest:
    """A project's own pytest: its interpreter and options, and where their bytecode is kept.

    The bytecode has a folder of its own because an environment may be part of the project's tree.
    """

    python: Path
    options: Sequence[str]
    bytecode: Path

    def strategy(self, name: str, tree: Tree, origins: Collection[Path]) -> Strategy:
        """Return the way to run it in a tree; it may be installed from one of the origins."""
        path = [*self.own_modules(tree, origins), os.environ.get("PYTHONPATH", "")]
        return Strategy(
            name,
            options=tuple(self.options),
            python=self.python,
            tests=None,
            folder=tree.folder,
            variables=(
                ("PYTHONDONTWRITEBYTECODE", ""),
                ("PYTHONPYCACHEPREFIX", str(self.bytecode)),
                ("PYTHONPATH", os.pathsep.join(path)),
            ),
        )

    def own_modules(self, tree: Tree, origins: Collection[Path]) -> Iterator[str]:
        """Yield where the tree has what the interpreter would take from another one.

        A project that is installed in editable mode is found where it was installed from: without
        these, a checkout's tests would test the code beside it.
        """
        for path in map(Path, ask(self.python)["path"]):
            for origin in origins:
                if path.resolve().is_relative_to(origin) and "site-packages" not in path.parts:
                    own = tree.top / path.resolve().relative_to(origin)
                    if own.is_dir():
                        yield str(own)


def collect(strategy: Strategy, tree: Tree, console: Console) -> Strategy:
    """Let pytest collect the tests of a tree; return on how many workers its settings run them.

    A tree where pytest cannot is refused. It takes seconds where a run may take minutes, and leaves
    bytecode of everything that the tests import, so that no run pays for it.
    """
    with bar(console) as progress:
        collecting = replace(strategy, options=(*strategy.options, "--collect-only"))
        task = progress.add_task(f"collecting: {strategy.name}", total=None)
        result = run(collecting, progress, task)
    if result.exit_code not in (0, 1) or not result.collected:
        message = refusal(collecting, result, "cannot start")
        raise CannotRunError(f"{message}\n{tree.hint}".rstrip())
    return replace(strategy, workers=result.workers)


def usable(strategy: Strategy, result: Run, _wanted: set[str] | None = None) -> None:
    """Refuse a run in which pytest did not come to its end, or in which no test passed.

    Tests that fail are outcomes like others. Without a run of both sides there is nothing to
    compare, whereas parallel is one column.
    """
    if result.exit_code in (0, 1) and result.passed:
        return
    message = refusal(strategy, result, "has passed no test" if result.tests else "did not run")
    raise StrategyFailedError(message) if strategy.name == PARALLEL else CannotRunError(message)


def refusal(strategy: Strategy, result: Run, what: str) -> str:
    """Return what is wrong with a run, its command and the last lines of its output."""
    typed = shlex.join([str(strategy.python.absolute()), "-m", "pytest", *strategy.options])
    ended = f"pytest ended with exit code {result.exit_code}"
    return (
        f"{strategy.name} {what}, {ended}:\n$ cd {strategy.folder}\n$ {typed}\n{result.message()}"
    )
