"""What README and docs say is so: links, anchors, commands, code. `make docs-check` runs this."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from upgrade.blocks import USUAL, blocks, shown, usual
from upgrade.parts import changed_lines, comments, compose, parts

from guarantees.project import HERE, REAL_CONFTEST, Project, code

ROOT = HERE.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ADOPTING = ROOT / "docs" / "adopting.md"
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

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
    assert names == ["admin", "member"]
    await db.delete(await db.get(Role, 1))
    await db.commit()
"""


def at_the_end_of_the_block(project: Project, snippets: list[str]) -> None:
    """Paste code of the docs where an adopter would."""
    conftest = text(project.path / "tests" / "conftest.py")
    block = parts(conftest).block.rstrip() + "\n\n\n" + "\n\n".join(snippets) + "\n\n"
    project.write("tests/conftest.py", compose(conftest, block))


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


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
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


def test_the_adapt_marks_are_those_of_the_conftest() -> None:
    marks = re.findall(r"^# ADAPT (\d/\d): ", text(REAL_CONFTEST), re.MULTILINE)

    assert marks == ["1/4", "2/4", "3/4", "4/4"]
    assert re.findall(r"^\| (\d/4) \|", text(ADOPTING), re.MULTILINE) == marks


def test_the_names_that_a_block_may_not_have_are_those_of_the_contract() -> None:
    _, contract = text(REAL_CONFTEST).split("# === The contract")
    contract, _ = contract.split("# === You can stop reading here")
    (said,) = re.findall(r"^These are ours: ([^.]*)\.", text(ADOPTING), re.MULTILINE)

    fixtures = re.findall(r"^(?:async )?def (\w+)", contract, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", said)) == sorted(fixtures)


def test_the_alembic_recipe_is_that_of_the_tested_shape() -> None:
    (recipe,) = [each for each in code(ADOPTING, "python") if "do_run_migrations" in each]

    assert recipe in text(HERE / "shapes" / "alembic" / "migrations" / "env.py")


def test_what_to_install_upgrades_nothing() -> None:
    install = code(ADOPTING, "bash")[0].splitlines()[1]
    names = shlex.split(install.removeprefix("pip install "), comments=True)

    assert {"pytest", "pytest-asyncio", "httpx", "sqlalchemy[asyncio]"} <= set(names)
    assert [name for name in names if not re.fullmatch(r"[a-z-]+(\[[a-z]+\])?", name)] == []


def test_the_page_of_blocks_shows_what_the_shapes_run_with() -> None:
    tested = blocks()

    on_the_page = shown()

    as_usual = {name for name, block in tested.items() if block == usual()}
    assert set(on_the_page) == set(tested) - as_usual | {USUAL}
    for name, (lines, block) in on_the_page.items():
        assert (name, block) == (name, tested[name])
        assert lines == changed_lines(block, usual())


def test_the_page_of_blocks_begins_with_the_shortest() -> None:
    lengths = {name: len(block.splitlines()) for name, (_, block) in shown().items()}

    assert next(iter(lengths)) == "plain"
    assert min(lengths.values()) == lengths["plain"]


def test_every_block_has_the_four_marks() -> None:
    for name, block in blocks().items():
        assert (name, list(comments(block))) == (name, list("1234"))


def test_the_aliases_work_together(project: Project) -> None:
    aliases = [each for each in code(ADOPTING, "python") if ALIAS.search(each)]
    at_the_end_of_the_block(project, aliases)
    project.write("tests/test_old.py", OLD_SUITE)

    result = project.run()

    result.assert_outcomes(passed=9)


def test_the_rows_of_every_test_are_those_of_the_page(project: Project) -> None:
    (rows,) = [each for each in code(ADOPTING, "python") if "def setup_roles" in each]
    project.replace(
        "tests/conftest.py",
        "from app.roles import setup_roles\n",
        f"from app.models import Role\n\n\n{rows}",
    )
    project.write("tests/test_rows.py", ROWS)

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_fixture_in_a_folder_below_may_add_to_ours(project: Project) -> None:
    (below,) = [each for each in code(ADOPTING, "python") if "def client(client)" in each]
    project.write("tests/api/conftest.py", f"import pytest\n\n{below}")
    project.write(
        "tests/api/test_language.py",
        "async def test_it(client):\n    assert client.headers['Accept-Language'] == 'en'\n",
    )

    result = project.run()

    result.assert_outcomes(passed=1)


def test_the_tests_of_a_folder_are_marked_by_the_hook_of_the_page(project: Project) -> None:
    (hook,) = [each for each in code(ADOPTING, "python") if "add_marker" in each]
    imports = "from pathlib import Path\n\nimport pytest\n\n\n"
    project.write("tests/writers/conftest.py", imports + hook)
    counted = "async def test_it(client):\n    await client.post('/users/ada')\n"
    project.write("tests/writers/test_inside.py", counted)
    project.write("tests/test_outside.py", counted)

    result = project.run()

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines("database: 1 tests with real commits*")


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
