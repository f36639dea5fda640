"""Which engines may connect, and where: a test must not reach a database that is not its own.

From the start of the run to its end there are four kinds of engines. Those that this folder has
made connect as they like, and so do those that the project allows. Those of the application are
connected to the database of the test, by `application.Connections`. All others are refused, and so
are drivers that connect by themselves. A database that a fixture has made for the test, or that the
schema is being built in, is open to everybody. While a test runs that is none of ours, of another
project in the same run, the guard is down.

SQLAlchemy asks listeners of the class Engine before those of an instance, so that an application's
own `do_connect`, which gets a token for a cloud, does not get to answer.
"""

import functools
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any
from unittest import mock
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

from .addresses import address_of
from .drivers import sqlstate
from .project import project
from .record import failure, refuse, set_up_error, wide_fixtures

# Where every connection of a driver passes, also by a function that was imported by name.
DRIVERS_CONNECT = {
    "asyncpg.connect_utils": "_connect",
    "psycopg.generators": "connect",
    "psycopg2.extensions": "make_dsn",
}
OTHERS = "It is not a database of this run."
_trusted = WeakSet[sa.Dialect]()  # of the engines that may connect
open_databases = set[str]()  # their names; everybody may connect
_connecting = ContextVar("connecting", default=False)  # an engine that may connect does, here
_is_down = False


@contextmanager
def listening(target: Any, **listeners: Callable[..., Any]) -> Iterator[None]:
    """Have functions called at events, for as long as the context lasts."""
    for event, listener in listeners.items():
        sa.event.listen(target, event, listener)
    try:
        yield
    finally:
        for event, listener in listeners.items():
            sa.event.remove(target, event, listener)


@contextmanager
def guard(connections: Any) -> Iterator[None]:
    """Stand for as long as the context lasts.

    connections: of the application, which lead to the database of the test.
    """
    for engine in [each for each in project().allowed if not isinstance(each, str)]:
        if connections.owns(engine.dialect, engine.dialect.create_connect_args(engine.url)[1]):
            problem = f"allowed has {engine.url!r}, by which the application connects"
            raise set_up_error(problem, f"remove it, {project().place}")
        trust(engine.dialect)

    def connect(dialect: sa.Dialect, record: Any, args: Any, to: Any) -> Any:
        return None if _is_down else connect_as_allowed(connections, dialect, record, args, to)

    with (
        listening(sa.Engine, do_connect=connect, handle_error=explain_lock),
        listening(Pool, checkout=connections.check_out, checkin=connections.check_in),
        ExitStack() as stack,
    ):
        for name in DRIVERS_CONNECT.keys() & sys.modules.keys():
            stand_before(sys.modules[name], stack)
        importer = GuardedImport(stack)
        sys.meta_path.insert(0, importer)
        stack.callback(sys.meta_path.remove, importer)
        yield


def stand_before(driver: ModuleType, stack: ExitStack) -> None:
    """Let nobody connect by this module of a driver but an engine that may."""
    name, function = driver.__name__, DRIVERS_CONNECT[driver.__name__]
    if not hasattr(driver, function):
        problem = f"This version of {name} has no {function}, so the guard cannot stand before it"
        fix = f"copy a newer fastapi_conftest, or pip install an older {name.partition('.')[0]}"
        raise set_up_error(problem, fix)
    connect = guarded(getattr(driver, function))
    stack.enter_context(mock.patch.object(driver, function, connect))


class GuardedImport(MetaPathFinder):
    """Has the guard stand before a driver once it is imported: few runs need all of them."""

    def __init__(self, stack: ExitStack) -> None:
        """Guard until the stack is closed."""
        self.stack = stack

    def find_spec(self, name: str, path: Any, _target: object = None) -> ModuleSpec | None:
        """Find a driver as Python does, and guard it when it has been executed."""
        spec = PathFinder.find_spec(name, path) if name in DRIVERS_CONNECT else None
        if spec and spec.loader:
            loader: Any = spec.loader
            execute = loader.exec_module

            def execute_and_guard(module: ModuleType) -> None:
                execute(module)
                stand_before(module, self.stack)

            loader.exec_module = execute_and_guard
        return spec


def connect_as_allowed(
    connections: Any, dialect: sa.Dialect, record: ConnectionPoolEntry, args: Any, to: Any
) -> Any:
    """Connect an engine where it may; refuse one that would reach another database."""
    if dialect in _trusted or is_open(args, to):
        pass
    elif connections.owns(dialect, to):
        args, to = connections.where(dialect, record, to)
    elif dialect.name not in allowed_dialects():
        is_other = dialect.name != "postgresql"
        name = f"a {dialect.name} database" if is_other else address_of(to)
        how_to = (
            f"{connections} If the application uses this engine, write engines=[...]; if it is of "
            "another database that tests may change, allowed=[...]: "
            f"{project().place}. To test migrations there is the fixture empty_database."
        )
        refuse(f"a connection to {name}. {OTHERS}", how_to)
    if dialect.driver.startswith("psycopg"):
        to.setdefault("hostaddr", "")  # libpq would let PGHOSTADDR win over the host
    token = _connecting.set(True)
    try:
        return dialect.connect(*args, **to)
    except Exception as error:
        # too_many_connections; of a connection that failed psycopg keeps the text alone.
        told = ("too many clients", "connection slots are reserved", "too many connections")
        if sqlstate(error) != "53300" and not any(text in str(error) for text in told):
            raise
        problem = "PostgreSQL has no connection left. A worker needs 3, a test with real commits"
        fix = "lower -n, or raise max_connections of a server of your own"
        raise failure(f"{problem} more.", fix) from None
    finally:
        _connecting.reset(token)


def explain_lock(context: sa.ExceptionContext) -> None:
    """Say who holds a lock that was waited for too long."""
    if sqlstate(context.original_exception) == "55P03":  # lock_not_available
        told = context.sqlalchemy_exception or context.original_exception
        told.add_note(
            "Another session of this test holds the lock, such as that of db: commit or close it "
            "first.\nWhat a fixture deletes at its end is gone without it."
        )


class Severed:
    """Stands in the place of a connection that was opened before the guard stood."""

    def close(self) -> None:
        """Close nothing: not even the end of the session is to reach its server."""

    rollback = terminate = close

    def __getattr__(self, name: str) -> Any:
        """Refuse everything else."""
        refuse(f"a connection that was opened before the tests. {OTHERS}", what_to_ask_for())


KINDS = (sa.Engine, ConnectionPoolEntry, PoolProxiedConnection)
_put_aside: list[Any] = []  # never closed


def sever() -> None:
    """Make connections that were opened before unusable, pooled or held: no event would fire.

    They belong to other databases. Pools open others in their place.
    """
    gc.unfreeze()  # what is frozen is not among the objects
    found = [it for it in gc.get_objects() if issubclass(type(it), KINDS)]
    engines = [it for it in found if isinstance(it, sa.Engine)]
    names = allowed_dialects()
    spared = [it.pool for it in engines if it.dialect in _trusted or it.dialect.name in names]
    for it in found:
        pool = getattr(it, "_pool", None) or getattr(it, "_ConnectionRecord__pool", None)
        if not isinstance(it, sa.Engine) and it.dbapi_connection and pool not in spared:
            _put_aside.append(it.dbapi_connection)
            is_held = isinstance(it, PoolProxiedConnection)
            it.dbapi_connection = Severed() if is_held else None


def allowed_dialects() -> list[str]:
    """Return the names of the dialects that may connect."""
    return [each for each in project().allowed if isinstance(each, str)]


def stand(*, down: bool) -> None:
    """Take the guard down while a test runs that is none of ours, or put it up again."""
    global _is_down  # noqa: PLW0603 - one test at a time runs in a process
    if _is_down and not down:
        sever()
    _is_down = down


def is_down() -> bool:
    """Tell whether the test that runs is none of ours."""
    return _is_down


@contextmanager
def open_to_everybody(database: str) -> Iterator[None]:
    """Let whoever likes connect to a database, for as long as the context lasts."""
    open_databases.add(database)
    try:
        yield
    finally:
        open_databases.discard(database)


def open_engine(url: sa.URL, **options: Any) -> AsyncEngine:
    """Make an engine that may connect."""
    engine = create_async_engine(url, **options)
    trust(engine.dialect)
    return engine


def trust(dialect: sa.Dialect) -> None:
    """Let the engines of a dialect connect, and keep what they have connected."""
    _trusted.add(dialect)


def guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Return a driver's function that connects, for nobody but an engine that may."""

    @functools.wraps(connect)
    def connect_if_allowed(*args: Any, **to: Any) -> Any:
        if not (_is_down or _connecting.get() or is_open(args, to)):
            refuse("a connection by the driver itself, past SQLAlchemy.", what_to_ask_for())
        return connect(*args, **to)

    return connect_if_allowed


def is_open(*arguments: object) -> bool:
    """Tell whether these arguments of a connection name a database that is open to everybody."""
    return any(name in str(arguments) for name in open_databases)


def what_to_ask_for() -> str:
    """Say how to reach the database of the test."""
    if wide_fixtures:
        return (
            f"It comes from {wide_fixtures[-1]}, which lives longer than a test. Leave out its "
            "scope=, and ask for db in it; or, where every test may count on the rows that it "
            "writes, write them in a function that the fixture roles hands to seed_once."
        )
    return (
        "In a test ask for db, client, engine or get_db_session, and open connections by a factory "
        f"in sessions=[...] or by its engine ({project().place}). A test that opens sessions by "
        'other means asks for @pytest.mark.usefixtures("override_get_db").'
    )
