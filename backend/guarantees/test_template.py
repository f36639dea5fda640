"""Promise 1: the schema is built as migrations expect, and building it leaves nothing else."""

import secrets

import pytest

from guarantees.factories import write_on_both_paths, write_tests
from guarantees.project import CONFTEST, Project
from guarantees.servers import Database

ALEMBIC = """
from alembic.migration import MigrationContext

def create_schema(connection):
    context = MigrationContext.configure(connection, opts={{"transaction_per_migration": True}})

    def tables():
        Base.metadata.create_all(connection)
        connection.exec_driver_sql("CREATE TYPE mood AS ENUM ('sad')")
        connection.exec_driver_sql("CREATE TABLE moods (mood mood)")

    def index():
        with context.autocommit_block():
            connection.exec_driver_sql("CREATE INDEX CONCURRENTLY desks ON users (desk)")

    def value():
        connection.exec_driver_sql("ALTER TYPE mood ADD VALUE 'happy'")

    def row():
        connection.exec_driver_sql("INSERT INTO moods VALUES ('happy')")

    for step in {steps}:
        with context.begin_transaction(_per_migration=True):
            step()
"""
STEPS = {
    "an autocommit block": "[tables, index, value, row]",
    "a transaction each": "[tables, value, row]",
    "commits of its own": "[tables, value, connection.commit, row, connection.commit]",
}


@pytest.mark.usefixtures("each_driver")
@pytest.mark.parametrize("steps", STEPS.values(), ids=list(STEPS))
def test_migrations_have_transactions_of_their_own(project: Project, steps: str) -> None:
    project.isolate("create_schema=create_schema", ALEMBIC.format(steps=steps))
    write_on_both_paths(
        project,
        """
async def test_it(db):
    assert await db.scalar(sa.text("SELECT count(*) FROM moods WHERE mood = 'happy'")) == 1
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


LOGS = """
def create_schema(connection):
    import logging.config, os
    logging.config.dictConfig({{"version": 1, "root": {{"level": "INFO"}},
                               "disable_existing_loggers": True}})
    os.environ["FROM_ENV_PY"] = "1"
    os.environ.pop("KEPT")
    Base.metadata.create_all(connection)  # {unique}
"""


@pytest.mark.parametrize("arguments", [["--rebuild-schema"], [], ["-n", "2"]])
def test_building_it_changes_neither_logging_nor_the_environment(
    project: Project, arguments: list[str]
) -> None:
    project.environment["KEPT"] = "1"
    handler = "import logging\nlogging.root.addHandler(logging.FileHandler('app.log'))\n"
    project.isolate("create_schema=create_schema", handler + LOGS.format(unique="always the same"))
    write_tests(
        project,
        """
import logging
import os
from pathlib import Path

app_log = logging.getLogger("app.log")

def test_1_a_warning_of_the_app_is_there(caplog, db):
    app_log.warning("careful")
    assert "careful" in caplog.text
    assert "careful" in Path("app.log").read_text()

def test_2_info_is_off_by_default(caplog, db):
    logging.getLogger("app.new").info("hello")
    assert "hello" not in caplog.text

def test_3_the_environment_is_as_it_was(db):
    assert "FROM_ENV_PY" not in os.environ and os.environ["KEPT"] == "1"
""",
    )

    result = project.run(*arguments)

    result.assert_outcomes(passed=3)


SETTINGS = """
def create_schema(connection):
    Base.metadata.create_all(connection)
    name = connection.exec_driver_sql("SELECT current_database()").scalar()
    connection.exec_driver_sql(f"ALTER DATABASE {name} SET app.region = 'eu; ''west'''")
    connection.exec_driver_sql(f"ALTER DATABASE {name} SET statement_timeout = '50s'")
    connection.exec_driver_sql(f'ALTER DATABASE {name} SET search_path = "$user", public, other')
    connection.exec_driver_sql(f"ALTER DATABASE {name} SET temp_tablespaces = ''")
    connection.exec_driver_sql(f"REVOKE TEMP ON DATABASE {name} FROM PUBLIC")
    connection.exec_driver_sql(f"GRANT CREATE ON DATABASE {name} TO pg_monitor")
"""


def test_what_it_sets_and_grants_on_its_database_holds_in_the_clones(project: Project) -> None:
    project.isolate("create_schema=create_schema", SETTINGS)
    write_on_both_paths(
        project,
        """
EXPECTED = {"app.region": "eu; 'west'", "statement_timeout": "50s",
            "search_path": '"$user", public, other', "temp_tablespaces": '""'}

@pytest.mark.parametrize("name", EXPECTED)
async def test_settings(db, name):
    found = await db.scalar(sa.text("SELECT current_setting(:name, true)"), {"name": name})
    assert found == EXPECTED[name]

async def test_privileges(db):
    may = "SELECT has_database_privilege({}, current_database(), {})"
    assert not await db.scalar(sa.text(may.format("'public'", "'TEMP'")))
    assert await db.scalar(sa.text(may.format("'public'", "'CONNECT'")))
    assert await db.scalar(sa.text(may.format("'pg_monitor'", "'CREATE'")))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=10)


def test_a_role_that_exists_already_is_told_with_what_to_write(
    project: Project, database: Database
) -> None:
    database.query("DROP ROLE IF EXISTS app_reader")
    project.isolate(
        "create_schema=create_schema",
        "def create_schema(connection):\n"
        "    Base.metadata.create_all(connection)\n"
        f"    connection.exec_driver_sql('CREATE ROLE app_reader')  # {secrets.token_hex(8)}\n",
    )
    write_tests(project, "async def test_it(db): pass\n")

    first, second = project.run("--rebuild-schema"), project.run("--rebuild-schema")

    first.assert_outcomes(passed=1)
    assert second.ret == pytest.ExitCode.USAGE_ERROR
    assert "EXCEPTION WHEN duplicate_object THEN NULL" in str(second.stderr)
    database.query("DROP ROLE app_reader")


THING = """
from sqlalchemy.orm import Mapped, mapped_column
from app.db import Base

class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)

@pytest.mark.parametrize("number", range(4))
async def test_it(db, number):
    db.add(Thing())
    await db.commit()
"""


def test_a_model_that_only_the_workers_know_is_told(project: Project) -> None:
    write_tests(project, THING)

    serial, parallel = project.run(), project.run("-n", "2")

    serial.assert_outcomes(passed=4)
    assert parallel.ret == pytest.ExitCode.USAGE_ERROR
    said = "Only this process knows the tables things, not what built the schema"
    assert said in str(parallel.stderr)
    assert "import the modules of these models above isolate(...)" in str(parallel.stderr)


def test_metadata_without_tables_is_told(project: Project) -> None:
    project.replace(CONFTEST, "metadata=Base.metadata", "metadata=sa.MetaData()")
    project.replace(CONFTEST, "import pytest\n", "import pytest\nimport sqlalchemy as sa\n")
    write_tests(project, "async def test_it(db): pass\n")

    result = project.run()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "metadata has no tables" in str(result.stderr)


def test_thousands_of_tables_do_not_fill_the_table_of_locks(project: Project) -> None:
    project.extend_schema(
        """
CREATE TABLE ev (id int, a int, b int, c int) PARTITION BY LIST (id);
CREATE INDEX ON ev (a);
CREATE INDEX ON ev (b);
CREATE INDEX ON ev (c);
DO $$ BEGIN FOR n IN 1..1500 LOOP
  EXECUTE format('CREATE TABLE ev_%s PARTITION OF ev FOR VALUES IN (%s)', n, n); END LOOP; END $$
"""
    )
    write_tests(
        project,
        """
@pytest.mark.parametrize("number", range(8))
async def test_many_tables(client, number):
    assert (await client.post("/users/ada")).status_code == 200
""",
    )

    result = project.run("-n", "4", "--real-commits")

    result.assert_outcomes(passed=8)


def test_a_type_that_exists_already_is_not_told_to_be_a_role(project: Project) -> None:
    project.extend_schema("CREATE TYPE userrole AS ENUM ('a');\nCREATE TYPE userrole AS ENUM ('a')")
    write_tests(project, "async def test_it(db): pass\n")

    result = project.run()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert 'type "userrole" already exists' in str(result.stderr)
    assert "CREATE ROLE" not in str(result.stderr)
