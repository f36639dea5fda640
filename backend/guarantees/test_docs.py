"""What README and docs say is so: links, anchors, commands, code. `make docs-check` runs this."""

import ast
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi_conftest import isolate

from benchmark.example import FOLDER
from benchmark.runs import TESTS
from guarantees.pages import PAGES, TARGETS, anchors, links, text, words
from guarantees.project import CONFTEST, HERE, ROOT, Project, code

ADOPTING = ROOT / "docs" / "adopting.md"
README = ROOT / "README.md"
ALIAS = re.compile(r"def (session|async_client|init_db|event_loop)\(")
# An old suite, which knows everything under other names.
OLD_SUITE = """
import asyncio

import pytest
from sqlalchemy import select

from app.models import Role, User

pytestmark = pytest.mark.usefixtures("init_db")


async def test_a_request_sees_what_the_session_has_committed(session, async_client):
    session.add(User(email="ada"))
    await session.commit()
    assert (await async_client.get("/users/count")).json() == 1


async def test_the_session_sees_what_a_request_has_done(session, async_client):
    await async_client.post("/users/ada")
    assert (await session.scalars(select(User.email))).all() == ["ada"]


async def test_the_tables_are_there(init_db, session):
    assert len((await session.scalars(select(Role))).all()) == 2


async def test_the_event_loop_is_the_one_that_runs(event_loop):
    assert event_loop is asyncio.get_running_loop()
"""
# What the docs may not have more of, code blocks and the changelog apart.
WORDS = {"README": 900, "docs": 9000}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_exist(page: Path) -> None:
    written = [*re.findall(r"`([^`\n]+)`", text(page)), *"".join(code(page, "bash")).splitlines()]
    named = [line.split()[1] for line in written if re.match(r"make [a-z]", line)]

    assert page.stem == "changelog" or [name for name in named if name not in TARGETS] == []


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_python_can_be_read(page: Path) -> None:
    for block in code(page, "python"):
        ast.parse(block)


def test_every_page_is_linked_from_the_readme_or_another_page() -> None:
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in links(page)
    }

    assert set(PAGES) - linked - {README} == set()


def test_there_are_no_more_words_than_somebody_reads() -> None:
    pages = [page for page in PAGES if page not in (README, ROOT / "docs" / "changelog.md")]

    assert words(README) <= WORDS["README"]
    assert sum(map(words, pages)) <= WORDS["docs"]


def test_the_promises_are_those_that_are_tested() -> None:
    page = text(ROOT / "docs" / "how-it-works.md").partition("## Guarantees")[2]
    named = re.findall(r"^\| (\d+) [^|]+\| ([^|]+) \|$", page, re.MULTILINE)
    listed = {name.strip() for _, names in named for name in names.split(",")}
    there = {path.stem for path in HERE.glob("test_*.py")}

    assert [number for number, _ in named] == [str(number) for number in range(1, 14)]
    for name in listed:
        assert [each for each in there if re.fullmatch(name.replace("*", r"\w*"), each)], name


def test_the_alembic_recipe_is_that_of_the_tested_shape() -> None:
    (recipe,) = [each for each in code(ADOPTING, "python") if "do_run_migrations" in each]

    assert recipe in text(HERE / "shapes" / "alembic" / "migrations" / "env.py")


def test_the_arguments_of_isolate_are_those_of_the_page() -> None:
    said = re.findall(r"^\| `(\w+)=` \|", text(ADOPTING), re.MULTILINE)
    arguments = inspect.signature(isolate).parameters.values()

    optional = {each.name for each in arguments if each.default is not each.empty}
    assert set(said) == optional


def test_the_commands_copy_both_and_keep_the_old_conftest(project: Project) -> None:
    commands = next(each for each in code(ADOPTING, "bash") if "cp -r" in each)
    shutil.rmtree(project.path / "tests" / FOLDER)
    project.write(CONFTEST, "OLD = True\n")
    copy = commands.partition("\n")[2].replace("../yours", str(project.path))

    subprocess.run(["bash", "-ec", copy], cwd=ROOT, check=True)  # noqa: S603, S607 - our own

    ours, theirs = (tests / FOLDER for tests in (TESTS, project.path / "tests"))
    assert project.read("tests/old_conftest.py") == "OLD = True\n"
    assert project.read(CONFTEST) == text(TESTS / "conftest.py")
    assert {each.name: text(each) for each in theirs.glob("*.py")} == {
        each.name: text(each) for each in ours.glob("*.py")
    }


def test_the_aliases_work_together(project: Project) -> None:
    aliases = [each for each in code(ADOPTING, "python") if ALIAS.search(each)]
    conftest = project.read(CONFTEST).replace("import sys\n", "import asyncio\nimport sys\n", 1)
    project.write(CONFTEST, conftest + "\n\n" + "\n\n".join(aliases))
    project.write("tests/test_old.py", OLD_SUITE)

    result = project.run()

    result.assert_outcomes(passed=4)


def test_the_settings_have_tools_leave_the_folder_alone(project: Project) -> None:
    (settings,) = code(ADOPTING, "toml")
    project.write("pyproject.toml", settings)
    project.write("tests/fastapi_conftest/embedded.py", "import os, sys\nx: int = ''\n")
    project.write("tests/test_it.py", "from fastapi_conftest import isolate\n\nisolate(1)\n")

    linted = run(project, "ruff", "check", "--select", "F", ".")
    checked = run(project, "mypy", "--strict", "tests/test_it.py")

    assert "embedded.py" not in linted
    assert "embedded.py" not in checked
    assert "Missing named argument" in checked


def run(project: Project, *command: str) -> str:
    """Return what a tool prints about a project."""
    return subprocess.run(  # noqa: S603 - our own tools
        [sys.executable, "-m", *command],
        cwd=project.path,
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def test_the_bare_pattern_works(project: Project, spare_database: str) -> None:
    (pattern,) = code(ROOT / "docs" / "how-it-works.md", "python")
    project.write(CONFTEST, pattern.replace("postgresql+asyncpg://localhost/test", spare_database))
    project.write(
        "tests/test_it.py",
        """
import pytest
from app.models import User

@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.asyncio(loop_scope="session")
async def test_it(client, db, time):
    db.add(User(email="ada"))
    await db.commit()
    assert (await client.get("/users/count")).json() == 1
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_the_test_in_the_readme_works(tmp_path: Path) -> None:
    (example,) = [each for each in code(README, "python") if "async def test_" in each]
    test = tmp_path / "test_example.py"
    test.write_text(f"from tests.factories import create_user\n\n\n{example}", encoding="utf-8")
    settings = ["-c", str(ROOT / "pyproject.toml")]

    result = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", *settings, str(test)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 passed" in result.stdout, result.stdout + result.stderr
