"""What README and docs say is so: links, anchors, commands, code. `make docs-check` runs this."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from guarantees.conftest import HERE, REAL_CONFTEST, Project, code

ROOT = HERE.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


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
    assert re.findall(r"^\| (\d/4) \|", text(ROOT / "docs" / "adopting.md"), re.MULTILINE) == marks


def test_the_alembic_recipe_is_that_of_the_tested_shape() -> None:
    env, _ = code(ROOT / "docs" / "adopting.md", "python")  # the other one is pasted by the shape

    assert env in text(HERE / "shapes" / "alembic" / "migrations" / "env.py")


def test_what_to_install_is_what_the_conftest_needs() -> None:
    install, *_ = code(ROOT / "docs" / "adopting.md", "bash")
    bounds = re.findall(r"([a-z-]+)(?:\[\w+\])?>=([\d.]+)", install)
    stated = dict(re.findall(r'"([a-z-]+)(?:\[\w+\])?>=([\d.]+)"', text(ROOT / "pyproject.toml")))

    assert [(name, stated[name]) for name, _ in bounds] == bounds
    assert {"pytest", "pytest-asyncio", "httpx"} <= set(install.split())


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
