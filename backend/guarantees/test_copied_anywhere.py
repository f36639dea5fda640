"""Promise 11: it works wherever it is copied, and however pytest is called."""

import shutil
from pathlib import Path

import pytest
from fastapi_conftest import hooks, report

from benchmark.example import FOLDER
from guarantees.project import CONFTEST, Project
from guarantees.report import ENDS, ran_again
from guarantees.servers import Database

TEST = "tests/test_it.py"
# The second test finds nothing of what the first has left.
TESTS = """
import pytest
from sqlalchemy import select

from app.models import User

@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, db, regular_user, time):
    assert (await client.post("/users/ada")).status_code == 200
    assert set(await db.scalars(select(User.email))) == {"ada", regular_user.email}
"""
PASSED = 2
MODES = ["prepend", "append", "importlib"]
# What a command puts on sys.path: `pytest` nothing, `python -m pytest` the folder it is called in.
COMMANDS = {"pytest": {"PYTHONSAFEPATH": "1"}, "python -m pytest": {}}
INI = "[pytest]\npythonpath = .\n"


@pytest.fixture(autouse=True)
def some_tests(project: Project) -> None:
    """Tests that need a clean database each; autouse because every run has them."""
    project.write(TEST, TESTS)


def move_to_checks(project: Project) -> None:
    """Give the tests folder a name by which pytest does not find its conftest at the start."""
    (project.path / "tests").rename(project.path / "checks")
    imported = "from {} import factories"
    project.replace("checks/conftest.py", imported.format("tests"), imported.format("checks"))


def move_conftest(project: Project, folder: str) -> None:
    """Have the conftest and its folder in another folder."""
    (project.path / folder).mkdir(exist_ok=True)
    for name in ("conftest.py", FOLDER):
        (project.path / "tests" / name).rename(project.path / folder / name)


@pytest.mark.parametrize("is_package", [True, False], ids=["__init__.py", "no __init__.py"])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("mode", MODES)
def test_each_import_mode_serves(
    project: Project, mode: str, command: str, *, is_package: bool
) -> None:
    project.environment |= COMMANDS[command]
    project.write("pytest.ini", INI if command == "pytest" else "")
    if not is_package:
        (project.path / "tests/__init__.py").unlink()

    result = project.run(f"--import-mode={mode}")

    result.assert_outcomes(passed=PASSED)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["serial", "parallel"])
@pytest.mark.parametrize("mode", MODES)
def test_a_conftest_may_be_found_late(project: Project, mode: str, workers: list[str]) -> None:
    move_to_checks(project)

    result = project.run(f"--import-mode={mode}", *workers)

    result.assert_outcomes(passed=PASSED)


ARGUMENTS = {
    "two workers": ["-n", "2"],
    "no cache": ["-p", "no:cacheprovider"],
    "no xdist": ["-p", "no:xdist"],
    "no anyio": ["-p", "no:anyio"],
    "plain asserts": ["--assert", "plain"],
    "no capture": ["-s"],
    "all warnings are errors": ["-W", "error"],
    "strict": ["--strict-config", "--strict-markers"],
    "one test": ["tests/test_it.py::test_it[1]", "tests/test_it.py::test_it[2]"],
    "random order": ["--random-order"],
    "every module is collected": ["-o", "python_files=*.py"],
    "doctests of every module": ["--doctest-modules"],
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=list(ARGUMENTS))
def test_pytest_may_be_called_with(project: Project, arguments: list[str]) -> None:
    result = project.run(*arguments)

    result.assert_outcomes(passed=PASSED)


@pytest.fixture
def checkout(tmp_path: Path, database: Database) -> Project:
    """A project that is one folder of its checkout."""
    project = Project(tmp_path / "checkout" / "backend", database)
    project.write(TEST, TESTS)
    project.write("pytest.ini", "")
    (tmp_path / "checkout" / "docs").mkdir()
    return project


CALLS = {
    "the checkout": (".", ["backend/tests"]),
    "the checkout, without arguments": (".", []),
    "the checkout, rooted in the project": (".", ["--rootdir", "backend", "backend/tests"]),
    "the checkout, rooted there": (".", ["--rootdir", ".", "backend/tests"]),
    "the checkout, by the project's settings": (".", ["-c", "backend/pytest.ini", "backend/tests"]),
    "the folder above": ("..", ["checkout/backend/tests/test_it.py"]),
    "a folder beside the project": ("docs", ["../backend/tests"]),
    "the tests": ("backend/tests", []),
    "the tests, rooted there": ("backend/tests", ["--rootdir", "."]),
    "the tests, rooted above": ("backend/tests", ["--rootdir", "../.."]),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("folder", "arguments"), CALLS.values(), ids=list(CALLS))
def test_pytest_may_be_called_in(
    checkout: Project, folder: str, arguments: list[str], command: str
) -> None:
    checkout.environment |= COMMANDS[command]

    result = checkout.run(*arguments, folder=checkout.path.parent / folder)

    result.assert_outcomes(passed=PASSED)


@pytest.mark.parametrize("mode", MODES)
def test_the_conftest_may_be_above_the_tests(project: Project, mode: str) -> None:
    move_conftest(project, ".")
    shutil.copytree(project.path / "tests", project.path / "checks")

    result = project.run(f"--import-mode={mode}")

    result.assert_outcomes(passed=2 * PASSED)


def test_the_conftest_may_be_a_plugin(project: Project) -> None:
    (project.path / "elsewhere").mkdir()
    (project.path / TEST).rename(project.path / "elsewhere/test_it.py")

    result = project.run("-p", "tests.conftest", "elsewhere")

    result.assert_outcomes(passed=PASSED)


def test_the_conftest_may_be_of_some_of_the_tests(project: Project) -> None:
    move_conftest(project, "tests/api")
    for folder in ("api", "unit"):
        project.write(f"tests/{folder}/__init__.py", "")
    (project.path / TEST).rename(project.path / "tests/api/test_it.py")
    project.write("tests/unit/test_it.py", "def test_it(): pass")

    result = project.run()

    result.assert_outcomes(passed=PASSED + 1)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["serial", "parallel"])
def test_a_path_may_have_a_space_and_an_accent(
    tmp_path: Path, database: Database, workers: list[str]
) -> None:
    project = Project(tmp_path / "my café", database)
    project.write(TEST, TESTS)

    result = project.run(*workers)

    result.assert_outcomes(passed=PASSED)


def test_a_path_may_be_a_symbolic_link(project: Project) -> None:
    (project.path / "link").symlink_to(project.path, target_is_directory=True)

    result = project.run("link/tests")

    result.assert_outcomes(passed=PASSED)


def test_two_projects_of_a_checkout_run_one_after_the_other(
    tmp_path: Path, database: Database
) -> None:
    one, two = (Project(tmp_path / name, database) for name in ("one", "two"))
    two.replace("app/models.py", '"users"', '"people"')
    table = "    assert User.__tablename__ == '{}'\n"
    one.write(TEST, TESTS + table.format("users"))
    two.write(TEST, TESTS + table.format("people"))

    for project in (one, two, one, two):
        result = project.run(f"{project.path.name}/tests", folder=tmp_path)

        result.assert_outcomes(passed=PASSED)
    assert database.leftovers() == []


# Those of xdist among them.
HOOKS = sorted(
    name
    for room in (hooks, report)
    for name, it in vars(room).items()
    if name.startswith("pytest_") and callable(it)
)
TEAMS_HOOK = """

def {0}():
    with open("called.txt", "a") as file:
        file.write("{0} ")
"""


def test_the_teams_own_hooks_work_beside_ours(project: Project) -> None:
    own = "".join(TEAMS_HOOK.format(name) for name in HOOKS)
    project.write(CONFTEST, project.read(CONFTEST) + own)
    commits = TESTS.replace("import select", "import select, text")
    project.write(TEST, f"{commits}    await db.execute(text('COMMIT'))\n")

    result = project.run("-n", "1")

    result.assert_outcomes(passed=PASSED)
    assert ran_again(result) == {"test_it[1]": ENDS, "test_it[2]": ENDS}
    assert set(project.read("called.txt").split()) == set(HOOKS)


TEAMS_HOOKS = """

def pytest_addoption(parser):
    parser.addoption("--of-the-team")

def pytest_configure(config):
    config.addinivalue_line("markers", f"slow: as {config.getoption('--of-the-team')} says")

def pytest_collection_modifyitems(items):
    for item in items:
        item.user_properties.append(("of the team", "collected"))

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    report.user_properties.append(("of the team", report.when))
    return report
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["serial", "parallel"])
def test_what_the_teams_own_hooks_do_is_done(project: Project, workers: list[str]) -> None:
    project.write(CONFTEST, project.read(CONFTEST) + TEAMS_HOOKS)
    slow = "@pytest.mark.slow\n@pytest.mark.parametrize"
    project.write(TEST, TESTS.replace("@pytest.mark.parametrize", slow))
    options = ["--of-the-team=x", "--real-commits", "--strict-markers", "--junitxml=it.xml"]

    result = project.run(*options, *workers)

    result.assert_outcomes(passed=PASSED)
    for value in ("collected", "teardown"):
        assert project.read("it.xml").count(f'name="of the team" value="{value}"') == PASSED
    result.stdout.fnmatch_lines(["database: 2 tests with real commits*"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["app", "redis"])
def test_a_folder_of_tests_hides_no_package(project: Project, name: str, mode: str) -> None:
    project.write("libraries/redis/__init__.py", "")
    project.write("libraries/redis/client.py", "")
    project.write("pytest.ini", "[pytest]\npythonpath = libraries .\n")
    project.write(f"tests/{name}/__init__.py", "")
    imports = "import app.security\nimport redis.client\n"
    project.write(f"tests/{name}/test_it.py", imports + TESTS)

    result = project.run(f"--import-mode={mode}")

    result.assert_outcomes(passed=2 * PASSED)


def test_tests_of_another_folder_keep_their_fixtures_of_the_same_names(project: Project) -> None:
    project.write(
        "others/conftest.py",
        "import pytest\n\n@pytest.fixture\ndef engine(): return 1\n",
    )
    project.write("others/test_others.py", "def test_it(engine): assert engine == 1")

    result = project.run("tests", "others")

    result.assert_outcomes(passed=PASSED + 1)
