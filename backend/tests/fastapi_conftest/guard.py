"""Which engines may connect: a test, or the app in it, must not reach a developer's database.

From the start of the run to its end only engines that this folder has made connect, and those that
the project allows; and drivers only for these engines. A database that a fixture has made for the
test, or that the schema is being built in, is open to everybody. While a test runs that is none of
ours, of another project in the same run, the guard is down.
"""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from typing import Any
from unittest import mock
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from .drivers import sqlstate
from .project import project
from .refusals import failure, refuse

# Where every connection of a driver passes, also by a function that was imported by name.
DRIVERS_CONNECT = (
    "asyncpg.connect_utils._connect",
    "psycopg.generators.connect",
    "psycopg2.extensions.make_dsn",
)
_trusted = WeakSet[sa.Dialect]()  # of the engines that may connect
_open = set[str]()  # names of databases that are open to everybody
_connecting = ContextVar("connecting", default=False)  # a trusted engine does, in this task
_is_down = False


@contextmanager
def guard() -> Iterator[None]:
    """Refuse whatever else connects, for as long as the context lasts."""
    with ExitStack() as stack:
        sa.event.listen(sa.Engine, "do_connect", refuse_stranger)
        stack.callback(sa.event.remove, sa.Engine, "do_connect", refuse_stranger)
        for each in project().allowed:
            if not isinstance(each, str):
                trust(getattr(each, "sync_engine", each))
        for path in DRIVERS_CONNECT:
            with suppress(ImportError):  # of a driver that is not installed
                connect = guarded(pkgutil.resolve_name(path))
                stack.enter_context(mock.patch(path, connect))
        yield


def stand(*, down: bool) -> None:
    """Take the guard down while a test runs that is none of ours, or put it up again."""
    global _is_down  # noqa: PLW0603 - one test at a time runs in a process
    _is_down = down


@contextmanager
def open_to_everybody(database: str) -> Iterator[None]:
    """Let whoever likes connect to a database, for as long as the context lasts."""
    _open.add(database)
    try:
        yield
    finally:
        _open.discard(database)


def some_are_open() -> bool:
    """Tell whether a database is open to everybody, where commits may go unseen."""
    return bool(_open)


def open_engine(url: sa.URL, **options: Any) -> AsyncEngine:
    """Make an engine that may connect."""
    engine = project().make_engine(url, **options)
    trust(engine.sync_engine)
    return engine


def trust(engine: sa.Engine) -> None:
    """Let an engine connect."""
    if engine.dialect not in _trusted:
        _trusted.add(engine.dialect)
        sa.event.listen(engine, "do_connect", connect_or_explain)


def connect_or_explain(dialect: sa.Dialect, _record: object, args: Any, to: Any) -> Any:
    """Connect; say what to do where the server has too few connections."""
    token = _connecting.set(True)
    try:
        return dialect.connect(*args, **to)
    except Exception as error:
        if sqlstate(error) != "53300":  # too_many_connections
            raise
        problem = "PostgreSQL has no connection left. A worker needs 3, a test with real commits"
        fix = "lower -n, or raise max_connections"
        raise failure(f"{problem} more.", fix) from None
    finally:
        _connecting.reset(token)


def refuse_stranger(dialect: sa.Dialect, _record: object, args: Any, to: dict[str, Any]) -> Any:
    """Refuse an engine that would connect past the transaction of the test."""
    if _is_down or dialect in _trusted:
        return None  # SQLAlchemy connects
    if not (dialect.name in project().allowed or is_open(args, to)):
        where = f"database {to.get('database', to.get('dbname'))!r} on {to.get('host')!r}"
        advice = use_a_factory()
        if not dialect.is_async:
            advice = f"Synchronous engines are not served; allowed=[...] lets them pass, {place()}."
        refuse(f"a connection to {where}, where nothing would undo changes.", advice)
    return connect_or_explain(dialect, _record, args, to)


def guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Return a driver's function that connects, for nobody but an engine that may."""

    @functools.wraps(connect)
    def connect_if_trusted(*args: Any, **to: Any) -> Any:
        if not (_is_down or _connecting.get() or is_open(args, to)):
            refuse("a connection by the driver itself, past SQLAlchemy.", use_a_factory())
        return connect(*args, **to)

    return connect_if_trusted


def is_open(*arguments: object) -> bool:
    """Tell whether these arguments of a connection name a database that is open to everybody."""
    return any(name in str(arguments) for name in _open)


def place() -> str:
    """Where the project's names stand."""
    return project().place


def use_a_factory() -> str:
    """Say how to reach the database of the test."""
    return (
        "In a test ask for db, client, engine or get_db_session, and open connections by a factory "
        f"in sessions=[...] or by its engine ({place()}). Rows that every test may count on belong "
        "into the fixture roles, not into a fixture of a module or of the session."
    )
