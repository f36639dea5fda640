"""What README and docs say is so: links, anchors, commands, code. `make docs-check` runs this."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from guarantees.project import (
    CONFTEST,
    FOLDER,
    HERE,
    ISOLATE,
    REAL_CONFTEST,
    ROOT,
    TARGETS,
    TESTS,
    Project,
    code,
)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ADOPTING = ROOT / "docs" / "adopting.md"
NOW = [page for page in PAGES if page.name != "changelog.md"]  # which names commands that are gone

ALIAS = re.compile(r"def (session|event_loop)\(|^TestingSessionLocal", re.MULTILINE)
# An old suite, which knows everything under other names.
OLD_SUITE = """
import asyncio

import pytest
from sqlalchemy import select, text

from app.models import Role, User
from tests.conftest import TestingSessionLocal, async_session_maker

pytestmark = pytest.mark.usefixtures("init_db")


async def test_a_request_sees_what_the_session_has_committed(session, async_client):
    session.add(User(email="ada"))
    await session.commit()
    assert (await async_client.get("/users/count")).json() == 1


async def test_the_session_reads_anew_what_another_has_changed(session):
    session.add(ada := User(email="ada"))
    await session.commit()
    async with TestingSessionLocal() as request:
        (await request.get(User, ada.id)).email = "joan"
        await request.commit()
    assert (await session.scalars(select(User))).one().email == "joan"


async def test_the_session_sees_what_a_request_has_done(db_session, test_client):
    await test_client.post("/users/ada")
    assert (await db_session.scalars(select(User.email))).all() == ["ada"]


@pytest.mark.parametrize("make", [TestingSessionLocal, async_session_maker])
async def test_factories_by_their_old_names(make, async_client):
    async with make() as session:
        session.add(User(email="ada"))
        await session.commit()
    assert (await async_client.get("/users/count")).json() == 1


@pytest.mark.parametrize("time", [1, 2])
async def test_the_engine_is_the_one_of_the_test(test_engine, time):
    async with test_engine.begin() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM users")) == 0
        await connection.execute(text("INSERT INTO users (email) VALUES ('ada')"))


async def test_the_tables_are_there(init_db, session):
    assert len((await session.scalars(select(Role))).all()) == 2


async def test_the_event_loop_is_the_one_that_runs(event_loop):
    assert event_loop is asyncio.get_running_loop()
"""
ROWS = """
import pytest
from sqlalchemy import select
from app.models import Role


@pytest.mark.parametrize("time", [1, 2])
async def test_the_rows_are_there(db, time):
    names = list(await db.scalars(select(Role.name).order_by(Role.id)))
    assert names == ["owner", "guest"]
    await db.delete(await db.get(Role, 1))
    await db.commit()
"""


# What each prints names the files that it has looked at.
TOOLS = {
    "ruff": ["ruff check --no-cache --output-format=concise --select=ALL tests"],
    "mypy": ["mypy --strict --no-site-packages --ignore-missing-imports tests"],
    "coverage": ["coverage run --source=tests -m pytest", "coverage report"],
}


EMPTY = """
from sqlalchemy import select
from app.models import Role


async def test_there_is_no_row(db):
    assert (await db.scalars(select(Role))).all() == []
"""


def recipe(language: str, holding: str) -> str:
    """Return the one code block of adopting.md that holds a text."""
    (block,) = [each for each in code(ADOPTING, language) if holding in each]
    return block


def text(page: Path) -> str:
    """Return what a page says."""
    return page.read_text(encoding="utf-8")


def targets(page: Path) -> list[str]:
    """Return what a page links to."""
    return re.findall(r"\]\(([^)]+)\)", text(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in targets(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", NOW, ids=[str(page.relative_to(ROOT)) for page in NOW])
def test_commands_exist(page: Path) -> None:
    written = [*re.findall(r"`([^`\n]+)`", text(page)), *"".join(code(page, "bash")).splitlines()]
    named = [line.split()[1] for line in written if re.match(r"make [a-z]", line)]

    assert [name for name in named if name not in TARGETS] == []


def test_every_page_is_linked_from_the_readme_or_another_page() -> None:
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in targets(page)
    }

    assert set(PAGES) - linked == {ROOT / "README.md"}


def test_the_alembic_recipe_is_that_of_the_tested_shape() -> None:
    (recipe,) = [each for each in code(ADOPTING, "python") if "do_run_migrations" in each]

    assert recipe in text(HERE / "shapes" / "alembic" / "migrations" / "env.py")


def test_what_to_install_upgrades_nothing() -> None:
    install = recipe("bash", "pip install").splitlines()[0]
    names = shlex.split(install.removeprefix("pip install "), comments=True)

    assert {"pytest", "pytest-asyncio", "httpx", "sqlalchemy[asyncio]"} <= set(names)
    assert [name for name in names if not re.fullmatch(r"[a-z-]+(\[[a-z]+\])?", name)] == []


def test_the_names_that_must_stay_are_those_that_the_folder_asks_for() -> None:
    rooms = "".join(text(TESTS / FOLDER / f"{room}.py") for room in ("hooks", "fixtures"))
    fixtures = re.findall(r"^(?:async )?def (\w+)", text(REAL_CONFTEST), re.MULTILINE)
    (said,) = re.findall(r"and the names (.*), which the folder knows", text(ADOPTING))

    asked_for = [name for name in fixtures if re.search(rf'"{name}"|\({name}\b|, {name}:', rooms)]

    assert re.findall(r"`(\w+)`", said) == asked_for


def test_the_call_of_the_page_is_that_of_the_conftest() -> None:
    assert ISOLATE in text(REAL_CONFTEST)
    assert ISOLATE in code(ADOPTING, "python")


def type_in(project: Project, lines: str) -> None:
    """Run commands of the page from this checkout, with a project as the adopter's own."""
    command = ["bash", "-ec", lines.replace("../yours", str(project.path))]
    subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603 - our own commands


def test_the_commands_copy_both_and_later_the_folder(project: Project) -> None:
    adopt, renew = (recipe("bash", f"cp -r backend/tests/{what}") for what in ("{", FOLDER))
    shutil.rmtree(project.path / "tests" / FOLDER)

    type_in(project, adopt.partition("\n")[2])
    project.append(CONFTEST, "MINE = True\n")
    project.write(f"tests/{FOLDER}/of_an_old_version.py", "")
    type_in(project, renew)

    ours, theirs = (tests / FOLDER for tests in (TESTS, project.path / "tests"))
    assert {each.name: text(each) for each in theirs.glob("*.py")} == {
        each.name: text(each) for each in ours.glob("*.py")
    }
    assert project.read("tests/old_conftest.py") == text(REAL_CONFTEST)
    assert project.read(CONFTEST) == f"{text(REAL_CONFTEST)}\n\nMINE = True\n"


def test_the_aliases_work_together(project: Project) -> None:
    aliases = [each for each in code(ADOPTING, "python") if ALIAS.search(each)]
    project.append(CONFTEST, "\n\n".join(["import asyncio", *aliases]))
    project.write("tests/test_old.py", OLD_SUITE)

    result = project.run()

    result.assert_outcomes(passed=9)


def test_the_rows_of_every_test_are_those_of_the_page(project: Project) -> None:
    rows = recipe("python", "def first_rows").replace("admin", "owner").replace("member", "guest")
    project.append(CONFTEST, f"from app.models import Role\n\n\n{rows}")
    project.write("tests/test_rows.py", ROWS)

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_project_without_such_rows_deletes_the_fixture(project: Project) -> None:
    roles = project.read(CONFTEST)
    begin = roles.index('@pytest_asyncio.fixture(scope="session")\nasync def roles')
    project.replace(CONFTEST, roles[begin : roles.index("@", begin + 1)], "")
    project.replace(CONFTEST, "engine: AsyncEngine, roles: None)", "engine: AsyncEngine)")
    project.write("tests/test_rows.py", EMPTY)

    result = project.run()

    result.assert_outcomes(passed=1)


def test_a_fixture_in_a_folder_below_may_add_to_ours(project: Project) -> None:
    (below,) = [each for each in code(ADOPTING, "python") if "def client(client)" in each]
    project.write("tests/api/conftest.py", f"import pytest\n\n{below}")
    project.write(
        "tests/api/test_language.py",
        "async def test_it(client):\n    assert client.headers['Accept-Language'] == 'en'\n",
    )

    result = project.run()

    result.assert_outcomes(passed=1)


def test_the_lines_for_isolate_give_a_folder_and_a_test_real_commits(project: Project) -> None:
    project.replace(CONFTEST, ISOLATE, recipe("python", "real_commits=["))
    counted = "async def {}(client):\n    await client.post('/users/ada')\n"
    project.write("tests/writers/test_inside.py", counted.format("test_it"))
    listed, other = "test_two_workers_take_different_jobs", "test_other"
    project.write("tests/test_jobs.py", counted.format(listed) + counted.format(other))

    result = project.run()

    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines("database: 2 tests with real commits*")


def test_other_overrides_may_stay_and_those_of_a_test_end_with_it(project: Project) -> None:
    project.append(CONFTEST, "application.dependency_overrides[len] = all\n")
    project.write(
        "tests/test_it.py",
        """
import pytest
from app.main import app

@pytest.mark.parametrize("time", [1, 2])
def test_it(time):
    assert app.dependency_overrides == {len: all}
    app.dependency_overrides[sum] = any
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_an_app_may_be_made_for_each_test(project: Project) -> None:
    project.replace(CONFTEST, "    return application\n", "    return make_app()\n")
    project.replace(CONFTEST, "isolate(application", "isolate(None")
    making = "def make_app():\n    app = FastAPI()\n    app.include_router(application.router)\n"
    project.append(CONFTEST, f"{making}    return app\n")
    project.write(
        "tests/test_it.py",
        """
import pytest

@pytest.mark.parametrize("time", [1, 2])
async def test_it(app, client, time):
    await client.post("/users/ada")
    assert (await client.get("/users/count")).json() == 1
    assert app.dependency_overrides == {}
    app.dependency_overrides[sum] = any
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def output(project: Project, tool: str) -> str:
    """Return what a tool says of a project's tests, by the settings of the project."""
    variables = {name: it for name, it in project.variables().items() if "COVERAGE" not in name}
    done = [
        subprocess.run(  # noqa: S603 - our own tools
            [sys.executable, "-m", *command.split()],
            cwd=project.path,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        for command in TOOLS[tool]
    ]
    return done[-1].stdout


@pytest.mark.parametrize("tool", TOOLS)
def test_the_settings_of_the_page_have_tools_leave_the_folder_alone(
    project: Project, tool: str
) -> None:
    pytest.importorskip(tool, reason="only the environment of `make lint` has it")
    project.write("tests/test_it.py", "async def test_it(client): pass\n")
    without = output(project, tool)

    project.write("pyproject.toml", recipe("toml", "[tool.ruff]"))
    result = output(project, tool)

    assert f"{FOLDER}/fixtures.py" in without
    assert "tests/conftest.py" in result
    assert f"{FOLDER}/" not in result


def test_the_bare_pattern_works(project: Project, spare_database: str) -> None:
    (pattern,) = code(ROOT / "docs" / "how-it-works.md", "python")
    project.write(
        "tests/conftest.py", pattern.replace("postgresql+asyncpg://localhost/test", spare_database)
    )
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
    (example,) = code(ROOT / "README.md", "python")
    test = tmp_path / "test_example.py"
    test.write_text(f"from tests.factories import create_user\n\n\n{example}", encoding="utf-8")

    result = subprocess.run(  # noqa: S603 - our own command
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.conftest",
            "-c",
            ROOT / "pyproject.toml",
            test,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 passed" in result.stdout, result.stdout + result.stderr
