"""Promise 6: no byte reaches a database that we did not create, whatever was connected before."""

import shutil
from collections.abc import Iterator

import pytest
from fastapi_conftest.addresses import address_of, elsewhere
from sqlalchemy import make_url

from guarantees.project import CONFTEST, HERE, Project
from guarantees.proxy import Proxy, counting
from guarantees.servers import Database

# By which words asyncpg and libpq are told where to connect, as whom and how encrypted.
WORDS = """
    dsn conninfo service servicefile host hostaddr port database dbname user password passfile
    target_session_attrs load_balance_hosts channel_binding require_auth requirepeer requiressl
    direct_tls async_creator_fn ssl sslmode gssencmode krbsrvname scram_client_key
"""
# What the application has done with its database when it was imported, before any test.
BEFORE = {
    "nothing": "held = None",
    "tables": "held = Base.metadata.create_all(engine)",
    "a connection in each pool": """
for each in engine, pinging, late():
    with each.connect() as connection:
        connection.execute(text("SELECT 1"))
held = None
""",
    "a connection that is held": """
held = engine.connect()
held.execute(text("SELECT 1"))
""",
    "a session that is held": """
held = SessionLocal()
held.execute(text("SELECT 1"))
""",
}
APP = """
from functools import cache

from sqlalchemy import text

from app.db import SessionLocal, engine

pinging = create_engine(engine.url, pool_pre_ping=True)

@cache
def late():
    return create_engine(engine.url, pool_recycle=0)
"""
# Each test uses all of it, and does not care for errors.
TESTS = """
import asyncio
import atexit
import os
import socket
import threading

import pytest
from sqlalchemy import text

from app import models

INSERT = text("INSERT INTO users (email) VALUES ('ada')")

def use(it):
    try:
        with it() as connection:
            connection.execute(INSERT)
            connection.commit()
    except BaseException:
        pass

class Held:
    def __enter__(self): return models.held
    def __exit__(self, *_): pass

WAYS = [models.engine.connect, models.pinging.connect, models.late().connect, Held,
        models.SessionLocal]

def use_all():
    for it in WAYS:
        use(it)

@pytest.fixture(scope="session", autouse=True)
def of_the_session():
    atexit.register(use_all)
    use_all()
    yield
    use_all()

def test_without_a_fixture():
    use_all()

def test_with_one(client):
    use_all()
    client.post("/users/grace")

def test_in_a_thread(client):
    thread = threading.Thread(target=use_all)
    thread.start()
    thread.join()

async def test_in_a_task(client):
    await asyncio.gather(*(asyncio.to_thread(use, it) for it in WAYS))

def test_that_ends_its_session(client):
    if models.held:
        try:
            models.held.commit()
        except BaseException:
            pass
"""
CONNECTS = """
from app.db import engine
from sqlalchemy import text

with engine.connect() as connection:
    connection.execute(text("SELECT 1"))
"""
CONNECTED = """
from sqlalchemy import text
from app.db import engine

def ours():
    with engine.connect() as connection:
        return connection.scalar(text("SELECT current_database()")).startswith("fastapi_conftest_")
"""
HOOKS = """

def mark():
    import socket
    with socket.create_connection(("127.0.0.1", {control})) as control:
        control.recv(1)

@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(): mark()

@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(): mark()
"""


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    """The way to the developer's database, on which each byte is counted."""
    with counting(make_url(database.url)) as proxy:
        yield proxy


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("before", BEFORE.values(), ids=list(BEFORE))
def test_nothing_reaches_the_developers_database(
    project: Project, database: Database, proxy: Proxy, before: str, driver: str
) -> None:
    shutil.copytree(HERE / "shapes/synchronous", project.path, dirs_exist_ok=True)
    own = make_url(database.url)
    address = f"{own.username}:x@127.0.0.1:{proxy.port}/{own.database}"
    project.replace("app/db.py", "nobody:secret@127.0.0.1:1/production", address)
    models = project.read("app/models.py")
    project.write("app/models.py", f"from sqlalchemy import create_engine\n{models}{APP}{before}")
    project.write(CONFTEST, project.read(CONFTEST) + HOOKS.format(control=proxy.control))
    project.write("tests/test_users.py", TESTS)
    project.environment["DRIVER"] = driver

    result = project.run("--tb=short")

    assert result.parseoutcomes()["passed"] >= 1
    begun, ended = proxy.marks
    assert begun > 0 or before == BEFORE["nothing"]
    assert ended == begun
    assert proxy.received - begun <= 3 * 5, "at its end, each pool's session says so in five bytes"
    database.query("DROP TABLE IF EXISTS users")


def test_a_connection_that_is_held_from_before_is_refused(
    project: Project, database: Database
) -> None:
    url = database.url.replace("+asyncpg", "+psycopg")
    before = f"from sqlalchemy import create_engine\nheld = create_engine({url!r}).connect()\n"
    project.write("app/before.py", before)
    imports = "from app.models import User"
    project.replace(CONFTEST, imports, f"import app.before\n{imports}")
    project.write(
        "tests/test_it.py",
        """
from sqlalchemy import text
from app.before import held

def test_it(): held.execute(text("SELECT 1"))
""",
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Refused: a connection that was opened before the tests*"])


def test_what_a_test_of_another_folder_has_connected_is_not_used_by_ours(
    project: Project, database: Database
) -> None:
    shutil.copytree(HERE / "shapes/synchronous", project.path, dirs_exist_ok=True)
    own = make_url(database.url)
    address = own.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    unknown = "postgresql+{DRIVER}://nobody:secret@127.0.0.1:1/production"
    project.replace("app/db.py", unknown, address)
    project.write("app/models.py", project.read("app/models.py") + CONNECTS)
    project.write("others/test_other.py", f"{CONNECTED}\ndef test_it(): assert ours() is False")
    project.write("tests/test_users.py", f"{CONNECTED}\ndef test_it(db): assert ours() is True")

    result = project.run("others", "tests")

    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("server", "ours"), [("me@here", {"user", "host", "dbname"}), ("", {"dbname"})]
)
def test_no_word_about_where_to_connect_is_left_of_what_the_application_says(
    server: str, ours: set[str]
) -> None:
    given = dict.fromkeys([*WORDS.split(), "options", "server_settings"], "the application's")

    url = make_url(f"postgresql+psycopg2://{server}/ours")
    _, arguments = elsewhere(url.get_dialect()(), given, url)

    left = [name for name, value in arguments.items() if value == "the application's"]
    assert sorted(left) == ["options", "server_settings"]
    assert arguments.keys() - left == ours


# What a driver is told, and where it connects with PGHOST and the like set to "env" and 1234.
ADDRESSES = {
    "asyncpg": ({"host": "a", "port": 2, "database": "b"}, ("a", "2", "b")),
    "psycopg": ({"host": "a", "port": "2", "dbname": "b", "user": "c"}, ("a", "2", "b")),
    "several hosts": ({"host": ["a", "b"], "port": [1, 2], "database": "c"}, ("a,b", "1,2", "c")),
    "no database": ({"host": "a", "port": 2}, ("a", "2", "env")),
    "no port": ({"host": "a", "database": "b"}, ("a", "1234", "b")),
    "nothing": ({}, ("env", "1234", "env")),
}


@pytest.mark.parametrize(("told", "address"), ADDRESSES.values(), ids=list(ADDRESSES))
def test_an_address_is_what_the_driver_makes_of_it(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, object], address: tuple[str, ...]
) -> None:
    for name, value in ("PGHOST", "env"), ("PGPORT", "1234"), ("PGDATABASE", "env"):
        monkeypatch.setenv(name, value)

    found = address_of(told)

    assert found == address


@pytest.mark.parametrize(("told", "name"), [({"user": "ada"}, "ada"), ({}, "grace")])
def test_without_a_name_the_database_is_that_of_the_user(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, object], name: str
) -> None:
    monkeypatch.delenv("PGDATABASE", raising=False)
    monkeypatch.setenv("PGUSER", "grace")

    found = address_of(told)

    assert found.database == name


def test_what_the_application_has_pooled_is_not_used_while_tests_are_collected(
    project: Project, database: Database, proxy: Proxy
) -> None:
    shutil.copytree(HERE / "shapes/synchronous", project.path, dirs_exist_ok=True)
    own = make_url(database.url)
    address = f"{own.username}:x@127.0.0.1:{proxy.port}/{own.database}"
    project.replace("app/db.py", "nobody:secret@127.0.0.1:1/production", address)
    project.write("app/models.py", project.read("app/models.py") + CONNECTS)
    project.write(
        "tests/test_users.py",
        f"{CONNECTED}\nvalue = ours()\ndef test_it(db): assert value is None",
    )

    result = project.run()

    assert "Refused: a connection of the application outside a test" in str(result.stdout)


def test_a_user_without_a_name_has_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def getuser() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("PGUSER", raising=False)
    monkeypatch.setattr("getpass.getuser", getuser)

    found = address_of({"host": "a", "port": 2, "database": "b"})

    assert found == ("a", "2", "b")
