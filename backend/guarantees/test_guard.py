"""Promise 6: no engine reaches any database but the test's own, and no foreign one is touched."""

import asyncio

import pytest
from sqlalchemy import make_url

from benchmark.server import create_database, drop_database
from guarantees.factories import write_tests
from guarantees.project import CONFTEST, Project
from guarantees.report import ran_again
from guarantees.servers import Database

# Each line would connect past the test's transaction; what the message begins with, and its advice.
OUTSIDE = "a connection of the application outside a test"
FACTORY = "a factory in sessions=[...] or by its engine (in isolate(...)"
NAME_IT = "write engines=[...]"
BYPASSES = {
    "the app's engine": ("async with engine.connect(): pass", OUTSIDE, FACTORY),
    "a session without a fixture": (
        "async with SessionLocal() as s: await s.connection()",
        OUTSIDE,
        FACTORY,
    ),
    "an engine like the app's": (
        "async with create_async_engine(URL).connect(): pass",
        OUTSIDE,
        FACTORY,
    ),
    "another database": (
        "async with create_async_engine(URL + '2').connect(): pass",
        "a connection to database 'production2' on 127.0.0.1:1. It is not a database of this run.",
        "The application's is database 'production' on 127.0.0.1:1.",
    ),
    "the test's own server": (
        "async with create_async_engine(SERVER).connect(): pass",
        "a connection to database 'developer_",
        NAME_IT,
    ),
    "a synchronous engine": (
        "sa.create_engine('sqlite://').connect()",
        "a connection to a sqlite database.",
        "allowed=[...]: in isolate(...)",
    ),
    "the driver itself": ("await asyncpg.connect(DSN)", "a connection by the driver", FACTORY),
    "a function of the driver": ("await connect(DSN)", "a connection by the driver", FACTORY),
    "a pool of the driver": (
        "async with asyncpg.create_pool(DSN): pass",
        "a connection by the driver",
        FACTORY,
    ),
}


@pytest.mark.parametrize(("line", "problem", "advice"), BYPASSES.values(), ids=list(BYPASSES))
def test_a_bypass_fails_at_its_line_and_names_the_fix(
    project: Project, line: str, problem: str, advice: str
) -> None:
    project.write(
        "tests/test_it.py",
        f"""
import os
import asyncpg
import sqlalchemy as sa
from asyncpg import connect
from sqlalchemy.ext.asyncio import create_async_engine
from app.db import SessionLocal, engine
URL = "postgresql+asyncpg://somebody:s3cret@127.0.0.1:1/production"
SERVER = os.environ["TEST_DATABASE_URL"]
DSN = SERVER.replace("+asyncpg", "")

async def test_it():
    try:
        {line}
    except Exception:
        pass  # an application that catches everything must not hide it
""",
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_it.py:*"])
    assert f"Failed: Refused: {problem}" in str(result.stdout)
    assert advice in str(result.stdout)
    assert not ran_again(result)
    result.stdout.no_fnmatch_line("*s3cret@*Refused*")


def test_a_driver_is_refused_also_after_a_trusted_engine_has_connected(project: Project) -> None:
    project.write(
        "tests/test_it.py",
        """
import asyncio
import os
import asyncpg
import pytest
import sqlalchemy as sa
DSN = os.environ["TEST_DATABASE_URL"].replace("+asyncpg", "")

@pytest.mark.parametrize("path", ["savepoints", pytest.param("", marks=pytest.mark.fresh_database)])
async def test_it(get_db_session, path):
    async with get_db_session() as one, get_db_session() as other:  # connect, in this task
        for each in one, other:
            await each.execute(sa.text("SELECT 1"))
        with pytest.raises(pytest.fail.Exception, match="past SQLAlchemy"):
            await asyncpg.connect(DSN)
        raise RuntimeError("refused")
""",
    )

    result = project.run()

    result.assert_outcomes(failed=2)
    assert str(result.stdout).count(" - RuntimeError: refused") == 2


# In place of drivers that are not installed: what matters is where their connect passes.
DRIVERS = {
    "psycopg/__init__.py": """
from psycopg import generators
class Connection:
    @classmethod
    def connect(cls, conninfo="", **kwargs):
        list(generators.connect(conninfo))
        return "connected"
connect = Connection.connect
""",
    "psycopg/generators.py": "def connect(conninfo): return [conninfo]\n",
    "psycopg2/__init__.py": """
from psycopg2 import extensions
def connect(dsn=None, **kwargs):
    extensions.make_dsn(dsn, **kwargs)
    return "connected"
""",
    "psycopg2/extensions.py": "def make_dsn(dsn=None, **kwargs): return dsn\n",
}


def test_synchronous_drivers_are_refused_also_when_imported_late(project: Project) -> None:
    for path, source in DRIVERS.items():
        project.write(path, source)
    project.write(
        "tests/test_it.py",
        """
import pytest

@pytest.mark.parametrize("line", [
    "import psycopg; psycopg.connect('host=production')",
    "import psycopg; psycopg.Connection.connect('host=production')",
    "from psycopg import connect; connect('host=production')",
    "import psycopg2; psycopg2.connect('host=production')",
    "from psycopg2 import connect; connect(host='production')",
])
def test_it(line):
    try:
        exec(line)
    except Exception:
        pass
""",
    )

    result = project.run_in_new_process()  # where no driver is imported yet

    result.assert_outcomes(failed=5)
    said = "Refused: a connection by the driver itself, past SQLAlchemy."
    assert len([line for line in result.outlines if line.startswith("E ") and said in line]) == 5


def test_a_driver_that_the_guard_does_not_know_ends_the_run_with_one_message(
    project: Project,
) -> None:
    for path, source in DRIVERS.items():
        project.write(path, source.replace("make_dsn", "make_it"))
    project.replace(CONFTEST, "import pytest\n", "import psycopg2\nimport pytest\n")
    project.write("tests/test_it.py", "def test_it(): pass")

    result = project.run_in_new_process()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = "This version of psycopg2.extensions has no make_dsn"
    assert said in str(result.stderr)
    assert "To fix it: copy a newer fastapi_conftest" in str(result.stderr)
    assert "Traceback" not in str(result.stderr)


def test_what_isolate_allows_may_connect_and_nothing_else(project: Project) -> None:
    project.write(
        "app/store.py",
        """
import sqlalchemy as sa

analytics = sa.create_engine("sqlite:///analytics.db")
held = analytics.connect()
other = sa.create_engine("sqlite:///other.db")
memory = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
with memory.begin() as connection:
    connection.execute(sa.text("CREATE TABLE kept (id INTEGER)"))
""",
    )
    project.write(
        "tests/test_it.py",
        """
import sqlalchemy as sa
from app.store import analytics, held, memory, other
from sqlalchemy.ext.asyncio import create_async_engine

def test_1_analytics():
    with analytics.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1

def test_2_other():
    with other.connect(): pass

def test_3_memory():
    with sa.create_engine("sqlite://").connect(): pass

async def test_4_production(db):
    async with create_async_engine("postgresql+asyncpg://127.0.0.1:1/elsewhere").connect(): pass

def test_5_in_memory():
    with memory.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM kept")) == 0

def test_6_held():
    assert held.scalar(sa.text("SELECT 1")) == 1
""",
    )
    conftest = project.read(CONFTEST)
    outcomes = []
    for allowed in "[]", '["sqlite"]', "[analytics]":
        project.write(CONFTEST, conftest)
        project.isolate(f"allowed={allowed}", "from app.store import analytics")

        result = project.run()

        failed = [line.split("::")[1] for line in result.outlines if line.startswith("FAILED ")]
        outcomes.append(sorted(line.split(" ")[0] for line in failed))

    assert outcomes == [
        [
            "test_1_analytics",
            "test_2_other",
            "test_3_memory",
            "test_4_production",
            "test_5_in_memory",
            "test_6_held",
        ],
        ["test_4_production"],
        ["test_2_other", "test_3_memory", "test_4_production", "test_5_in_memory"],
    ]


def test_an_empty_database_is_open_to_all_and_gone_afterwards(
    project: Project, database: Database
) -> None:
    project.write(
        "tests/test_it.py",
        """
import os
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from app.models import Base, User

async def test_1_migrates(empty_database, db):
    Path("name.txt").write_text(empty_database.database)
    engine = create_async_engine(empty_database)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(sa.text("INSERT INTO users (email) VALUES ('there')"))
    plain = empty_database.set(drivername="postgresql").render_as_string(False)
    driver = await asyncpg.connect(plain)
    assert await driver.fetchval("SELECT count(*) FROM users") == 1
    await driver.close()
    assert (await db.scalars(sa.select(User.email))).all() == []

async def test_2_with_a_connection_left_open(empty_database):
    engine = create_async_engine(empty_database)
    global left
    left = await engine.connect()
    assert await left.scalar(sa.text("SELECT to_regclass('users')")) is None

async def test_3_the_guard_is_on(empty_database):
    async with create_async_engine(os.environ["TEST_DATABASE_URL"]).connect(): pass

async def test_4_also_for_the_one_of_before(db):
    url = sa.make_url(os.environ["TEST_DATABASE_URL"]).set(database=Path("name.txt").read_text())
    async with create_async_engine(url).connect(): pass
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2, failed=2)
    assert len([each for each in result.outlines if "Refused: a connection to" in each]) >= 2
    name = (project.path / "name.txt").read_text(encoding="utf-8")
    assert name not in database.leftovers()


def test_the_message_for_a_listed_factory_tells_what_to_ask_for(project: Project) -> None:
    project.write(
        "tests/test_it.py",
        """
from app.db import SessionLocal

async def test_it():
    async with SessionLocal() as session: await session.connection()
""",
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*In a test ask for db, client, engine or get_db_session*"])
    assert "list the factory" not in str(result.stdout).lower()


def test_the_named_database_and_a_look_alike_stay_as_they_were(
    project: Project, database: Database
) -> None:
    look_alike = "fastapi_conftest_999_main"
    database.query("CREATE TABLE precious AS SELECT 42 AS answer")
    asyncio.run(create_database(make_url(database.url), look_alike))
    project.write("tests/test_it.py", "async def test_it(client): await client.post('/users/ada')")

    project.run().assert_outcomes(passed=1)

    tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    left = database.query("SELECT datname::text FROM pg_database WHERE datname = :n", n=look_alike)
    assert database.query(tables) == ["precious"]
    assert database.query("SELECT answer FROM precious") == [42]
    assert left == [look_alike]
    database.query("DROP TABLE precious")
    asyncio.run(drop_database(make_url(database.url), look_alike))


def test_a_test_of_another_project_in_the_run_may_connect(project: Project) -> None:
    connects = "import sqlalchemy as sa\ndef test_it(): sa.create_engine('sqlite://').connect()\n"
    for path in ("tests/test_1.py", "other/test_2.py", "tests/test_3.py"):
        project.write(path, connects)

    result = project.run("tests/test_1.py", "other", "tests/test_3.py")

    result.assert_outcomes(passed=1, failed=2)
    assert "other/test_2.py::test_it" not in str(result.stdout)


def test_a_fixture_of_ours_ends_guarded_after_the_last_test_of_another_project(
    project: Project,
) -> None:
    project.write(
        "tests/test_1.py",
        """
import pytest_asyncio
import sqlalchemy as sa
from app.db import engine

@pytest_asyncio.fixture(scope="session")
async def tidy():
    yield
    async with engine.connect() as connection:
        await connection.execute(sa.text("DELETE FROM users"))

async def test_it(db, tidy): pass
""",
    )
    project.write("other/test_2.py", "def test_it(): pass")

    result = project.run("tests", "other")

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*Refused: a connection of the application outside a test*"])


def test_a_test_of_another_project_has_its_own_connections(
    project: Project, database: Database
) -> None:
    own = make_url(database.url)
    project.replace(
        "app/db.py",
        "postgresql+asyncpg://nobody@127.0.0.1:1/production",
        own.render_as_string(hide_password=False),
    )
    write_tests(
        project,
        "@pytest.mark.fresh_database\nasync def test_it(client): await client.get('/users/count')",
    )
    project.write(
        "other/test_2.py",
        f"""
import sqlalchemy as sa
from app.db import engine

async def test_it():
    async with engine.connect() as connection:
        name = await connection.scalar(sa.text("SELECT current_database()"))
        assert name == {own.database!r}
""",
    )

    result = project.run("tests", "other", "tests")

    result.assert_outcomes(passed=2)


def test_our_tests_go_on_after_one_of_another_project(project: Project) -> None:
    for path in ("tests/test_1.py", "tests/test_3.py"):
        project.write(
            path,
            "import sqlalchemy as sa\n"
            "async def test_it(db): assert await db.scalar(sa.text('SELECT 1')) == 1\n",
        )
    project.write("other/test_2.py", "def test_it(): pass")

    result = project.run("tests/test_1.py", "other", "tests/test_3.py")

    result.assert_outcomes(passed=3)


def test_an_engine_with_the_applications_address_may_not_be_allowed(project: Project) -> None:
    project.isolate(
        "allowed=[other]",
        "from app.db import engine as apps_engine\n"
        "from sqlalchemy.ext.asyncio import create_async_engine\n"
        "other = create_async_engine(apps_engine.url)\n",
    )
    write_tests(project, "async def test_it(db): pass")

    result = project.run()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*allowed has *127.0.0.1:1/production, by which the application connects",
            "*To fix it: remove it*",
        ]
    )


def test_an_address_in_the_environment_does_not_win_over_the_one_that_is_given(
    project: Project,
) -> None:
    project.use_driver("psycopg")
    project.environment["PGHOSTADDR"] = "127.0.0.1"
    project.write("tests/test_it.py", "async def test_it(client): await client.get('/users/count')")

    result = project.run()

    result.assert_outcomes(passed=1)
