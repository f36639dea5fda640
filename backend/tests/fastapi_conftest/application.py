"""The application's own engines, connected to the database of the test.

They keep their pools with their limits, their options, isolation level, `connect_args` and event
listeners: what is different from production is the address. (By rollback, copies of them have one
connection in the place of a pool.) An engine is the application's by identity, where a session
factory has it or `isolate` names it, or by its address: one that would connect where those do.

After a test a connection is reset and kept where it is idle, whole and of the session's event loop;
else it is ended. A connection of asyncpg belongs to one event loop, and TestClient has loops of its
own: on such a loop each use of the pool gets a new connection, which is closed when it is given
back.
"""

import asyncio
import threading
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from weakref import WeakSet, ref

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

from .addresses import Address, address_of, elsewhere
from .drivers import in_transaction, is_lost, run_script, settings_when_new
from .guard import connect_as_allowed, is_down, what_to_ask_for
from .project import PREFIX, project
from .record import ENDED, NEVER_GIVEN_BACK, REAL_COMMITS_HELP, refuse, running

NEW_AGAIN = """
    CLOSE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES;
    SELECT pg_stat_force_next_flush();
    DO $$ DECLARE it text; BEGIN
      FOR it IN SELECT name FROM pg_prepared_statements WHERE from_sql
      LOOP EXECUTE format('DEALLOCATE %I', it); END LOOP;
    END $$
"""
OUTSIDE = "a connection of the application outside a test, where nothing would undo changes."
OTHER_LOOP = "a statement on another event loop than that of the test: TestClient has its own."
BY_ROLLBACK = "an engine of the application that the transaction of the test does not reach."


@dataclass(eq=False)
class Opened:
    """A connection that the application has opened.

    target: the URL of the database: this very object is that of one clone, until it is dropped.
    loop: the event loop that it belongs to, if the driver is asynchronous.
    holder: who has it now, and the thread that has asked for it.
    script: what makes it as good as new, and its process id on the server.
    """

    target: sa.URL
    loop: asyncio.AbstractEventLoop | None
    holder: Callable[[], PoolProxiedConnection | None] = lambda: None
    thread: threading.Thread | None = None
    script: str = ""
    pid: int = 0
    was_handed_out: bool = False
    autocommit: bool = False

    @property
    def is_in_thread(self) -> bool:
        """Whether the thread that has asked for it still runs, and may go on to use it."""
        return self.thread is not None and self.thread.is_alive()

    @property
    def is_here(self) -> bool:
        """Whether it can be used on the event loop that runs here."""
        return self.loop in (None, running_loop())


class Connections:
    """All connections of the application, and where new ones lead.

    target: the database of the test that runs; or a text that says why there is none.
    loop: the event loop of the tests, where connections are kept.
    aside: what closes connections that were to be closed elsewhere than on their loop.
    """

    def __init__(self, engines: list[Any]) -> None:
        """Begin with the engines that are known by name."""
        self.engines = engines
        self.addresses: set[Address] = set()
        self.dialects = WeakSet[sa.Dialect]()
        self.target: sa.URL | str = OUTSIDE
        self.loop: asyncio.AbstractEventLoop | None = None
        self.entries, self.lock = WeakSet[ConnectionPoolEntry](), threading.Lock()
        self.aside: list[tuple[object, Callable[[], None]]] = []
        for engine in engines:
            if engine.url.database:
                self.addresses.add(address_of(engine.dialect.create_connect_args(engine.url)[1]))
            self.adopt(engine.dialect)
            self.take_the_place_of_a_creator(engine.dialect, engine.pool)

    def __str__(self) -> str:
        """Name the application's databases in a message."""
        return f"The application's is {' or '.join(map(str, sorted(self.addresses)))}."

    def adopt(self, dialect: sa.Dialect) -> None:
        """Treat a dialect as the application's, and watch its connections."""
        self.dialects.add(dialect)
        methods: Any = dialect
        driver_connection = methods.get_driver_connection

        def hand_out(connection: Any) -> Any:
            if opened := self.opened(connection):
                opened.was_handed_out = True
            return driver_connection(connection)

        methods.get_driver_connection = hand_out
        if dialect.is_async:
            ping = methods.do_ping
            methods.do_ping = lambda connection: self.is_here(connection) and ping(connection)
            for name in ("do_close", "do_terminate"):
                setattr(methods, name, partial(self.close_here, getattr(methods, name)))

    def take_the_place_of_a_creator(self, dialect: sa.Dialect, pool: Any) -> None:
        """Connect an engine that was made with `creator=`, which would go past all events."""
        if pool._creator.__module__ != "sqlalchemy.engine.create":  # noqa: SLF001 - no other way
            pool._creator = lambda record: connect_as_allowed(self, dialect, record, (), {})  # noqa: SLF001

    def opened(self, connection: Any) -> Opened | None:
        """Return what is known of a connection."""
        found = (it for entry, it in self.all() if entry.dbapi_connection is connection)
        return next(found, None)

    def is_here(self, connection: Any) -> bool:
        """Tell whether a connection belongs to the event loop that runs here."""
        opened = self.opened(connection)
        return opened is None or opened.is_here

    def close_here(self, close: Callable[[Any], None], connection: Any) -> None:
        """Close a connection for a pool; put it aside where it is of another event loop."""
        if self.is_here(connection):
            close(connection)
        else:
            opened = self.opened(connection)
            self.aside.append((opened and opened.loop, partial(close, connection)))

    def owns(self, dialect: sa.Dialect, to: Any) -> bool:
        """Tell whether an engine is the application's."""
        is_ours = dialect.name == "postgresql" and address_of(to) in self.addresses
        return dialect in self.dialects or is_ours

    def where(self, dialect: sa.Dialect, entry: ConnectionPoolEntry, to: Any) -> tuple[Any, Any]:
        """Return where an engine of the application connects now, or refuse."""
        target = self.target_or_refuse()
        if dialect not in self.dialects:
            self.adopt(dialect)
        entry.info[PREFIX] = Opened(target, running_loop() if dialect.is_async else None)
        return elsewhere(dialect, to, target)

    def target_or_refuse(self) -> sa.URL:
        """Return the database of the test that runs."""
        if not isinstance(self.target, sa.URL):
            refuse(self.target, what_to_ask_for() if self.target is OUTSIDE else REAL_COMMITS_HELP)
        return self.target

    def check_out(self, connection: Any, entry: ConnectionPoolEntry, mine: Any) -> None:
        """Let somebody have a connection, where it is one to the database of this test."""
        if opened := entry.info.get(PREFIX):
            is_ours = not is_down() and opened.target is self.target_or_refuse()
            if not (is_ours and opened.is_here):
                raise sa.exc.DisconnectionError  # the pool opens another one in its place
            with self.lock:
                self.entries.add(entry)
            if not opened.script:  # it is new, and the application's listeners have set it up
                settings, opened.pid = settings_when_new(connection)
                opened.script = f"{settings}; {NEW_AGAIN}"
                opened.autocommit = bool(connection.autocommit)
            opened.holder, opened.thread = ref(mine), threading.current_thread()

    def check_in(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        """Take a connection back; what belongs to another event loop is closed, while it runs."""
        if opened := entry.info.get(PREFIX):
            opened.holder = lambda: None
            if connection and bool(connection.autocommit) is not opened.autocommit:
                opened.was_handed_out = True  # by the DBAPI connection, past SQLAlchemy
            if opened.loop not in (None, self.loop):
                entry.invalidate()

    def all(self) -> list[tuple[ConnectionPoolEntry, Opened]]:
        """Return the connections that are open."""
        with self.lock:  # of synchronous applications, whose threads check out meanwhile
            entries = [entry for entry in self.entries if entry.dbapi_connection]
        return [(entry, entry.info[PREFIX]) for entry in entries if PREFIX in entry.info]

    def held_by_threads(self) -> list[Opened]:
        """Return the connections that other threads have and have not given back."""
        here = threading.current_thread()
        held = [opened for _, opened in self.all() if opened.holder()]
        return [it for it in held if it.loop is None and it.thread is not here and it.is_in_thread]

    async def tidy(self, connection: AsyncConnection) -> list[int]:
        """Make all connections as good as new, or end them; return the process ids of the former.

        connection: any of SQLAlchemy's, whose `run_sync` lets pools close what they have.
        """
        kept, flawed = [], []
        for entry, opened in self.all():
            if flaw := self.flaw(entry, opened):
                running().note(ENDED, flaw)
                flawed.append((entry, opened))
            else:
                await run_script(entry.dbapi_connection, opened.script)
                kept.append(opened.pid)
        await connection.run_sync(self.close, flawed)
        return kept

    async def end(self, connection: AsyncConnection) -> None:
        """Close all connections: those of a clone that is given up, or that seeding has opened."""
        await connection.run_sync(self.close, self.all())

    def flaw(self, entry: ConnectionPoolEntry, opened: Opened) -> str:
        """Return why a connection cannot be made as good as new, if so."""
        if opened.holder():
            return NEVER_GIVEN_BACK
        if opened.was_handed_out:
            return "its driver's own connection was handed out"
        if is_lost(entry.dbapi_connection):
            return "it was lost"
        if in_transaction(entry.dbapi_connection):
            return "it was given back in a transaction"
        if opened.loop not in (None, self.loop) or opened.target is not self.target:
            return "it belongs to another event loop or database"
        return ""

    def close(self, _: object, which: list[tuple[ConnectionPoolEntry, Opened]]) -> None:
        """Close connections, also those that somebody has still: then pools get a place back."""
        for entry, opened in which:
            (opened.holder() or entry).invalidate()
        here = [each for each in self.aside if each[0] is running_loop()]
        # Where a loop has ended, the server has ended the session; to collect it would warn.
        self.aside = [each for each in self.aside if each not in here]
        for _loop, close in here:
            close()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def engines_of_the_app() -> list[Any]:
    """Return the engines behind the session factories and those that `isolate` names.

    A factory that has none gets one.
    """
    found: list[Any] = []
    for factory in project().sessions:
        binds = [factory.kw.get("bind"), *(factory.kw.get("binds") or {}).values()]
        engines = [bind for bind in binds if isinstance(bind, sa.Engine | AsyncEngine)]
        if not engines:
            engines = [create_async_engine(f"{project().driver}:///{PREFIX}")]
            factory.configure(bind=engines[0])
        found += engines
    return list(dict.fromkeys([*found, *project().engines]))


def on_another_pool(engine: Any, pool: Any, dialect: sa.Dialect) -> Any:
    """Return an engine with the options of this one, and another pool.

    They share the listeners for events of an engine: those that are added later, too.
    """
    other = copy(engine)
    if hasattr(engine, "_proxied"):  # it was made by execution_options(), and has no pool itself
        other._proxied = on_another_pool(engine._proxied, pool, dialect)  # noqa: SLF001 - as above
    else:
        other.pool = pool
    other.dialect, other.dispatch = dialect, engine.dispatch
    other._has_events = True  # noqa: SLF001 - else those that are added later are not heard
    return other


def for_the_test(engine: Any, poolclass: type[Pool], dialect: sa.Dialect) -> Any:
    """Return an engine for the test's own connection: like one of the application's.

    Listeners hear when it opens a connection, and nothing else: some work within a request only.
    """
    pool = poolclass(engine.pool._creator, dialect=dialect)  # noqa: SLF001 - as Pool.recreate
    for listener in engine.pool.dispatch.connect.listeners:
        sa.event.listen(pool, "connect", listener)
    other = on_another_pool(engine, pool, dialect)
    del other.dispatch
    return other


@cache
def connections() -> Connections:
    """Return the connections of the application in this process."""
    return Connections(engines_of_the_app())
