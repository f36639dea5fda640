"""A project that is not ours, as the comparison and the profile meet one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from guarantees.project import HERE, ISOLATED

# What pytest consists of; an interpreter that has nothing else is what a stranger's may be.
PYTEST = ("pytest*", "_pytest", "py.py", "pluggy*", "iniconfig*", "packaging*", "pygments*")
SUITE = {
    "pytest.ini": "[pytest]\naddopts = -k 'not never'\n",
    ".gitignore": ".env\n",
    "tests/conftest.py": """
import pytest

@pytest.fixture
def side():
    return "before"
""",
    "tests/nested/conftest.py": "import pytest\n@pytest.fixture\ndef nested(): return 1\n",
    "tests/nested/test_nested.py": "def test_nested(nested): pass\n",
    "tests/test_it.py": """
import pathlib, pytest

def test_passes(side): pass

def test_reads_its_settings():
    assert pathlib.Path(".env").read_text() == "SECRET=1"

@pytest.mark.skip
def test_is_skipped(): pass

@pytest.mark.xfail
def test_is_expected_to_fail(): assert False

def test_never(): pass

def test_fails_always(): assert False, "as it always did"
""",
}
BEFORE = """
import pytest

def test_goes(): pass

@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("loop", ["asyncio"])
def test_has_a_loop(loop, number): pass

def test_becomes(side): pass
"""
AFTER = """
import pytest

def test_comes(): pass

@pytest.mark.parametrize("number", [1, 2])
def test_has_a_loop(number): pass

def test_becomes(side):
    if side == "after":
        raise RuntimeError("the new conftest refuses,\\nand says what to type")
"""


class Repository:
    """A project that is not ours, with a git repository and an interpreter of its own."""

    def __init__(self, path: Path, python: Path) -> None:
        """Begin with an empty repository."""
        self.path = self.folder = path / "theirs"
        self.python = python
        self.temporary = path / "temporary"
        self.temporary.mkdir()
        self.path.mkdir()
        self.environment = {"TMPDIR": str(self.temporary)}
        self.git("init", "--quiet")

    def git(self, *arguments: str) -> str:
        """Run git in the repository."""
        names = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(self.path), *names, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603

    def write(self, files: dict[str, str]) -> None:
        """Write files."""
        for name, source in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(source, encoding="utf-8")

    def commit(self, files: dict[str, str], name: str) -> None:
        """Write files and commit them, under a name."""
        self.write(files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", name)
        self.git("tag", name)

    def state(self) -> object:
        """Return all that a stranger may find changed: files, statuses, worktrees, what git has."""
        asked = (("status", "--porcelain", "--ignored"), ("worktree", "list"), ("show-ref",))
        files = {path: path.read_bytes() for path in self.path.rglob("*") if path.is_file()}
        # `git status` itself writes the index anew.
        known = {path: data for path, data in files.items() if path.name != "index"}
        return (
            [self.git(*arguments) for arguments in asked],
            known,
            [*self.temporary.glob("*-????????")],
        )

    def command(self, module: str, *arguments: str | Path) -> list[str | Path]:
        """Return the command of a comparison or a profile."""
        return [sys.executable, "-m", f"benchmark.{module}", *arguments]

    def variables(self) -> dict[str, str]:
        """Return the variables of a shell that knows nothing of the run around it."""
        kept = {name: value for name, value in os.environ.items() if name not in ISOLATED}
        return kept | {"PYTHONPATH": str(HERE.parent)} | self.environment

    def run(self, module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it from our own folder; whatever it does, nothing is left in theirs."""
        before = self.state()
        done = subprocess.run(  # noqa: S603 - our own command
            self.command(module, self.folder, "--python", self.python, *arguments),
            cwd=HERE.parent,
            env=self.variables(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert self.state() == before  # noqa: S101 - a promise to each of its tests
        return done

    def compare(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Compare once."""
        return self.run("compare", "--rounds", "1", *arguments)


def bare_python(environment: Path) -> Path:
    """Make an interpreter that has pytest and nothing else: no plugin, nothing of ours."""
    command = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
    subprocess.run(command, check=True)  # noqa: S603 - our own interpreter
    (packages,) = environment.glob("lib/*/site-packages")
    for pattern in PYTEST:
        for package in Path(pytest.__file__).parent.parent.glob(pattern):
            if not re.match(r"pytest[_-](?!\d)", package.name):  # its plugins
                (packages / package.name).symlink_to(package)
    return environment / "bin" / "python"


def with_a_bit_of_everything(path: Path, python: Path) -> Repository:
    """Make a repository whose suite has a bit of everything, committed as `before` and `after`."""
    made = Repository(path, python)
    made.write({".env": "SECRET=1"})
    made.commit({**SUITE, "tests/test_differs.py": BEFORE}, "before")
    conftest = SUITE["tests/conftest.py"].replace("before", "after")
    made.commit({"tests/conftest.py": conftest, "tests/test_differs.py": AFTER}, "after")
    return made
