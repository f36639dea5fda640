"""The comparison on other people's projects: two trees of theirs, each run by its own pytest."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmark.outcomes import ABSENT, Sides, bare, is_worse
from benchmark.runs import Case, Run
from guarantees.project import FOLDER, HERE, ISOLATED, Project, copy_ours

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
GOOD = """test_is_expected_to_fail(): pass

@pytest.mark.xfail(strict=True)
def test_strictly(): pass"""


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
        assert self.state() == before
        return done

    def compare(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Compare once."""
        return self.run("compare", "--rounds", "1", *arguments)


@pytest.fixture(scope="session")
def their_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has pytest and nothing else: no SQLAlchemy, no xdist, nothing of ours."""
    environment = tmp_path_factory.mktemp("environment") / ".venv"
    command = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
    subprocess.run(command, check=True)  # noqa: S603 - our own interpreter
    (packages,) = environment.glob("lib/*/site-packages")
    for pattern in PYTEST:
        for package in Path(pytest.__file__).parent.parent.glob(pattern):
            if not re.match(r"pytest[_-](?!\d)", package.name):  # its plugins
                (packages / package.name).symlink_to(package)
    return environment / "bin" / "python"


@pytest.fixture
def repository(tmp_path: Path, their_python: Path) -> Repository:
    """A repository with a suite that has a bit of everything, committed as `before`, `after`."""
    made = Repository(tmp_path, their_python)
    made.write({".env": "SECRET=1"})
    made.commit({**SUITE, "tests/test_differs.py": BEFORE}, "before")
    conftest = SUITE["tests/conftest.py"].replace("before", "after")
    made.commit({"tests/conftest.py": conftest, "tests/test_differs.py": AFTER}, "after")
    return made


def test_two_revisions_get_a_table_and_every_difference_is_named(
    repository: Repository, tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    result = repository.compare("--before", "before", "--after", "after", "--json", str(file))

    assert result.returncode == 1, result.stdout + result.stderr
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert "5 tests, those that passed on both sides" in result.stdout
    assert figures["tests"] == 5
    assert [each["passed"] for each in figures["strategies"].values()] == [7, 6]
    _, _, differences = result.stdout.partition("before and after differ")
    assert differences.partition("\n\n")[0].splitlines()[2:] == [
        "WORSE, 1 test: passed before, not there after",
        "  tests/test_differs.py::test_goes",
        "WORSE, 1 test: passed before, failed after",
        "  tests/test_differs.py::test_becomes: RuntimeError: the new conftest refuses,",
        "  and says what to type",
        "1 test: not there before, passed after",
        "  tests/test_differs.py::test_comes",
    ]
    assert [each["worse"] for each in figures["differences"]] == [True, True, False]


def test_what_is_not_worse_is_named_and_no_error(repository: Repository) -> None:
    better = SUITE["tests/test_it.py"].replace("test_is_expected_to_fail(): assert False", GOOD)
    better = better.replace('assert False, "as it always did"', "pass")
    repository.write({"tests/test_it.py": better})

    result = repository.compare()

    assert result.returncode == 0, result.stdout + result.stderr
    _, _, differences = result.stdout.partition("before and after differ")
    assert differences.partition("\n\n")[0].splitlines()[2:] == [
        "1 test: xfailed before, xpassed after",
        "  tests/test_it.py::test_is_expected_to_fail",
        "1 test: failed before, passed after",
        "  tests/test_it.py::test_fails_always: AssertionError: as it always did",
        "  assert False",
        "1 test: not there before, xpassed after",
        "  tests/test_it.py::test_strictly: [XPASS(strict)] ",
    ]


@pytest.mark.parametrize(
    ("was", "became", "worse"),
    [
        ("passed", "failed", True),
        ("passed", "passed or failed", True),
        ("passed", "skipped", True),
        ("passed", ABSENT, True),
        ("xfailed", "error", True),
        (ABSENT, "failed", True),
        ("failed", "error", False),
        ("failed", ABSENT, False),
        ("passed or failed", "failed", False),
        ("xfailed", "passed", False),
        ("skipped", "passed", False),
    ],
)
def test_only_what_a_reader_would_have_to_mend_is_worse(was: str, became: str, worse: bool) -> None:
    assert is_worse(was, became) is worse


def test_what_is_the_same_on_both_sides_stops_nothing(repository: Repository) -> None:
    repository.write({"tests/test_it.py": f"{SUITE['tests/test_it.py']}\n"})

    result = repository.compare("--before", "after")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "6 tests, those that passed on both sides" in result.stdout
    assert "differ" not in result.stdout
    assert f"after: {repository.path}\n" in result.stdout


def test_a_change_that_is_committed_already_is_told_with_what_to_type(
    repository: Repository,
) -> None:
    repository.commit({"tests/fastapi_conftest/__init__.py": ""}, "adopted")
    repository.commit({"tests/test_later.py": "def test_later(): pass"}, "later")
    adopted = repository.git("rev-parse", "--short", "adopted").strip()

    result = repository.compare()

    assert result.returncode == 1
    assert f'make compare ARGS="{repository.path} --before {adopted}~1"\n' in result.stdout
    assert "are the same: somebody has committed the change already." in result.stdout
    assert "those that passed" not in result.stdout


def test_the_first_line_appears_within_two_seconds(repository: Repository) -> None:
    slow = "import time\ntime.sleep(3)\n"
    repository.commit({"tests/test_slow.py": slow}, "slow")
    arguments = (repository.path, "--python", repository.python, "--before", "before")
    started = time.monotonic()

    with subprocess.Popen(  # noqa: S603 - our own command
        repository.command("compare", *arguments),
        cwd=HERE.parent,
        env=repository.variables(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        first = process.stdout.readline()
        taken = time.monotonic() - started
        process.send_signal(signal.SIGTERM)

    assert first == f"Copying before and {repository.path}; nothing is written into them.\n"
    assert taken < 2


def test_versions_and_columns_are_those_of_their_interpreter(repository: Repository) -> None:
    result = repository.compare("--before", "before", "--", "-k", "nested")

    assert "1 tests, those that passed on both sides" in result.stdout
    assert f"pytest {pytest.__version__}\n" in result.stdout
    assert "sqlalchemy" not in result.stdout
    assert "parallel" not in result.stdout


def test_a_folder_inside_the_repository_and_two_folders(repository: Repository) -> None:
    repository.commit({"backend/test_it.py": "def test_it(): pass"}, "inside")
    old = repository.path.parent / "old"
    repository.git("worktree", "add", "--quiet", str(old), "inside")
    repository.write({"new.txt": ""})
    backend = repository.path / "backend"

    repository.folder = backend

    inside = repository.compare("--before", "inside")
    folders = repository.compare("--before", str(old / "backend"), "--after", str(backend))

    assert "1 tests, those that passed on both sides" in inside.stdout, inside.stdout
    assert "1 tests, those that passed on both sides" in folders.stdout, folders.stdout


def test_a_checkout_tests_its_own_code(repository: Repository, their_python: Path) -> None:
    checks = "import code_of_theirs\ndef test_it(): assert code_of_theirs.VALUE == {}\n"
    for value in (1, 2):
        source = {"src/code_of_theirs.py": f"VALUE = {value}", "test_it.py": checks.format(value)}
        repository.commit(source, f"value-{value}")
    (packages,) = their_python.parent.parent.glob("lib/*/site-packages")
    editable = packages / "theirs.pth"
    editable.write_text(str(repository.path / "src"), encoding="utf-8")

    try:
        result = repository.compare("--before", "value-1", "--after", "value-2", "--", "test_it.py")
    finally:
        editable.unlink()

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("first_line", "options", "reason"),
    [
        pytest.param(
            "import nothing_like_it", (), "No module named 'nothing_like_it'", id="import"
        ),
        pytest.param("", ("--no-such-option",), "unrecognized arguments: --no-such", id="usage"),
        pytest.param("", ("-k", "nothing_like_it"), "deselected", id="no tests"),
    ],
)
def test_a_run_that_cannot_start_is_told_before_anything_has_run(
    repository: Repository, first_line: str, options: Iterable[str], reason: str
) -> None:
    slow = f"import time\n{first_line}\ndef test_slow(): time.sleep(3600)\n"
    repository.commit({"tests/test_slow.py": slow}, "broken")
    repository.write({"new.txt": ""})

    result = repository.compare("--before", "broken", "--", *options)

    assert result.returncode == 1
    assert "before cannot start, pytest ended with exit code " in result.stdout
    assert " -m pytest " in result.stdout
    assert reason in result.stdout
    assert "those that passed" not in result.stdout


def test_what_keeps_many_files_from_being_collected_is_told_whole(repository: Repository) -> None:
    message = "no settings, and this is a message that is longer than a line of a terminal is wide"
    files = {f"tests/test_{number}.py": "import settings" for number in range(30)}
    settings = {"settings.py": f"raise RuntimeError({message!r})"}
    repository.commit({**files, **settings, "pytest.ini": "[pytest]\npythonpath = .\n"}, "broken")

    result = repository.compare("--before", "before", "--after", "broken")

    assert result.returncode == 1
    assert f"E   RuntimeError: {message}\n" in result.stdout


def test_a_side_that_passes_nothing_ends_the_comparison(repository: Repository) -> None:
    message = f"no server\\n{'and what to do about it ' * 8}\\nline 3"
    fails = "import pytest\n@pytest.fixture(autouse=True)\ndef side(): "
    fails += f'raise OSError("{message}")\n'
    repository.commit({"tests/conftest.py": fails}, "fails")

    result = repository.compare("--before", "before", "--after", "fails")

    assert result.returncode == 1
    assert "after has passed no test, pytest ended with exit code 1" in result.stdout
    whole = f"OSError: no server\n{'and what to do about it ' * 8}\nline 3\n"
    assert whole in result.stdout


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_comparison_cleans_up(repository: Repository, sent: signal.Signals) -> None:
    repository.environment["MARKS"] = str(repository.path.parent)
    waits = """
import os, pathlib, pytest, time
@pytest.fixture
def server():
    mark = pathlib.Path(os.environ["MARKS"], "running")
    yield mark
    mark.rename(mark.with_name("torn down"))

def test_waits(server):
    server.touch()
    time.sleep(3600)
"""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where a shell has it ignored
    repository.commit({"tests/test_waits.py": waits}, "waits")
    repository.write({"new.txt": ""})
    before = repository.state()
    arguments = (repository.path, "--python", repository.python, "--before", "waits")
    process = subprocess.Popen(  # noqa: S603 - our own command
        repository.command("compare", *arguments),
        cwd=HERE.parent,
        env=repository.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (repository.path.parent / "running").exists():
        assert process.poll() is None
        time.sleep(0.05)

    process.send_signal(sent)
    printed, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Interrupted" in printed
    assert (repository.path.parent / "torn down").exists()
    assert repository.state() == before


def test_a_profile_leaves_nothing_and_needs_nothing(repository: Repository) -> None:
    result = repository.run("profile", "--", "tests/nested")

    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"tests +│ +1 │", result.stdout), result.stdout


def test_a_profile_that_cannot_start_says_why(repository: Repository) -> None:
    result = repository.run("profile", "--", "nowhere")

    assert result.returncode == 1
    assert "file or directory not found: nowhere" in result.stdout


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("a[asyncio]", "a"),
        ("a[asyncio-1]", "a[1]"),
        ("a[1-asyncio-2]", "a[1-2]"),
        ("a[1-asyncio+uvloop]", "a[1]"),
        ("a[asyncio]@group", "a"),
        ("a[trio]", "a[trio]"),
        ("asyncio::a[asyncio_1]", "asyncio::a[asyncio_1]"),
    ],
)
def test_an_id_without_its_event_loop(theirs: str, ours: str) -> None:
    assert bare(theirs) == ours


def test_two_tests_with_one_bare_id_are_two(tmp_path: Path) -> None:
    def runs(*names: str) -> list[Run]:
        return [Run(1, 0, "", tests={name: Case("passed", 0, 0) for name in names})]

    sides = Sides("before", "after", runs("a[asyncio]", "a[asyncio+uvloop]"), runs("a"))

    assert [pair[:2] for pair in sides.pairs] == [("a[asyncio]", "a"), ("a[asyncio+uvloop]", None)]


def test_a_test_that_fails_now_and_then_is_named() -> None:
    runs = [Run(1, 0, "", tests={"a": Case(outcome, 0, 0)}) for outcome in ("passed", "failed")]

    sides = Sides("before", "after", runs, runs)

    assert sides.compared == []
    assert [*sides.different] == [("passed or failed", "passed or failed")]


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


def test_an_adopted_conftest_gets_its_table(project: Project, spare_database: str) -> None:
    theirs = Repository(project.path, Path(sys.executable))
    for folder in ("app", "tests"):
        shutil.copytree(project.path / folder, theirs.path / folder)
    shutil.rmtree(theirs.path / "tests" / FOLDER)
    settings = {"pytest.ini": "[pytest]\nasyncio_mode = auto\n", "tests/test_it.py": TESTS}
    theirs.commit({**settings, "tests/conftest.py": OLD}, "before")
    copy_ours(theirs.path / "tests")
    theirs.environment |= {**project.environment, "OLD_URL": spare_database}
    file = project.path / "figures.json"

    result = theirs.compare("--workers", "2", "--json", str(file))

    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert figures["tests"] == 5
    assert [each["passed"] for each in figures["strategies"].values()] == [5, 5, 5]
    before, after = (figures["strategies"][name] for name in ("before", "after"))
    assert before["ddl"] > after["ddl"]
    assert figures["ratio"] == pytest.approx(before["median_s"] / after["median_s"], abs=0.01)
    assert "What to fix next, by one run under the profiler:\n1. " in result.stdout


def test_settings_that_ask_for_workers_get_no_further_column(tmp_path: Path) -> None:
    theirs = Repository(tmp_path, Path(sys.executable))
    settings = {"pytest.ini": "[pytest]\naddopts = -n 2\n", "test_it.py": "def test_it(): pass"}
    theirs.commit(settings, "both")
    theirs.write({"new.txt": ""})

    result = theirs.compare("--before", "both")

    assert result.returncode == 0, result.stdout
    assert re.search(r"│ before -n 2 .*\n│ after -n 2 .*\n└", result.stdout), result.stdout
