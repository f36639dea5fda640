"""The first path: whatever a test commits is gone, by one ROLLBACK.

The engine of this clone has one connection. Its COMMIT and ROLLBACK are those of the savepoint of
the test that runs; without a test, whatever asks for a statement is refused.
"""

import asyncio
from copy import copy
from functools import partial
from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, StaticPool

from .application import BY_ROLLBACK, OTHER_LOOP, for_the_test, on_another_pool, running_loop
from .clone import Clone
from .drivers import execute, in_transaction, is_lost, settings_when_new, sqlstate
from .fidelity import EXECUTES, flaw_of
from .guard import trust, what_to_ask_for
from .pill import BEGIN, ENDS, ONLY_HERE, PREPARE, VERIFY
from .project import PREFIX
from .record import LEFT, NEVER_GIVEN_BACK, RETRY, Refusal, refuse, running
from .savepoint import LOST, UNDO, Facts, Savepoint
from .settings import that_tell

METHODS = ("do_commit", "do_rollback", "do_rollback_to_savepoint", "get_driver_connection")
# Constraints that SET CONSTRAINTS, by which a commit is emulated, cannot tell apart; and what would
# note or forbid the DDL by which a connection is prepared.
FLAWS = """
    SELECT format('of the constraints %I.%I only some are deferrable', min(nspname), conname)
    FROM pg_constraint JOIN pg_namespace AS n ON n.oid = connamespace GROUP BY n.oid, conname
    HAVING bool_or(condeferrable) AND NOT bool_and(condeferrable)
    UNION ALL SELECT format('the schema has the event trigger %I', evtname)
    FROM pg_event_trigger AS t WHERE evtenabled <> 'D' AND NOT EXISTS (
      SELECT FROM pg_depend WHERE objid = t.oid AND deptype = 'e')  -- of an extension
"""


class OneConnection(StaticPool):
    """A pool of one connection, whose figures are not those of the application's pool."""

    def size(self, *_: object) -> NoReturn:
        """Refuse what the pool in production would tell."""
        refuse("the figures of a pool: here all sessions share one connection.")

    checkedin = checkedout = overflow = timeout = size


class Rollback(Clone):
    """Makes the connections of an engine behave as if each had a transaction of its own.

    flaw: why tests of this application cannot be served by rollback, if so.
    connection: SQLAlchemy's of `db_transaction`, kept from test to test.
    savepoint: of the test that runs.
    left: connections that tests have not given back; held, because collecting one would close the
        one connection to the server.
    """

    # What runs after somebody has ended the test's transaction cannot write.
    SETTINGS = ("default_transaction_read_only = on",)

    def __init__(self, *arguments: Any) -> None:
        """Describe it."""
        super().__init__(*arguments)
        self.engine: Any = None
        self.flaw: str | None = None
        self.savepoint: Savepoint | None = None
        self.stand_ins: list[tuple[AsyncEngine, Any]] = []

    async def open(self, target: sa.URL) -> None:  # noqa: ARG002 - where the app's engines lead
        """Open the one connection as the application's first engine does; all engines share it."""
        self.connection: AsyncConnection | None = None
        self.left: list[PoolProxiedConnection] = []
        engines = [it for it in self.connections.engines if isinstance(it, AsyncEngine)]
        self.flaw = self.flaw or await flaw_of(engines)
        async with self.admin.engine.connect() as connection:
            await self.connections.end(connection)
        if self.flaw:
            return
        first: Any = engines[0].sync_engine
        own = for_the_test(first, OneConnection, self.emulating(first.dialect))
        sa.event.listen(own.pool, "connect", partial(self.prepare, first.dialect))
        sa.event.listen(own.pool, "checkout", self.note_checkout)
        self.engine = AsyncEngine(own)
        self.stand_ins = [(each, self.stand_in(each.sync_engine, own.pool)) for each in engines]
        async with self.engine.connect() as one:  # from now on there is this one connection
            settings, _ = await one.run_sync(lambda it: settings_when_new(it.connection))
            self.facts = Facts(settings, self.are_deferrable, self.tells)

    def stand_in(self, own: Any, pool: StaticPool) -> Any:
        """Return what an engine of the application is while a test runs."""
        other = on_another_pool(own, pool, self.emulating(own.dialect))
        # An app that closes its pool must not close the one connection.
        other.dispose = lambda *_, **__: None
        # The app may keep what it derives, for longer than there is a stand-in.
        other.execution_options = own.execution_options
        return other

    def emulating(self, dialect: Any) -> Any:
        """Return a dialect like this one, whose commits and rollbacks are the savepoint's."""
        other = copy(dialect)
        vars(other).pop("dispatch", None)  # of the other one, whose listeners are its own
        other.dispatch._update(dialect.dispatch, only_propagate=False)  # noqa: SLF001 - as Pool does
        trust(other)  # its one connection is not to be severed
        sa.event.listen(other, "handle_error", self.on_error)
        for name in EXECUTES:
            sa.event.listen(other, name, partial(self.execute, name))
        for name in METHODS:
            setattr(other, name, getattr(self, name))
        for name in ("set_isolation_level", "set_readonly", "set_deferrable"):
            setattr(other, name, self.change)
        return other

    def prepare(self, dialect: sa.Dialect, new: Any, record: ConnectionPoolEntry) -> None:
        """Make the pill and its functions on a new connection, which is ours from now on."""
        record.info.pop(PREFIX)
        new.commit()  # what the application's listeners have set
        dialect.set_isolation_level(new, "AUTOCOMMIT")
        new.run_async(lambda driver: execute(driver, PREPARE.replace("@restart", self.restart)))

    async def survey(self, connection: AsyncConnection) -> None:
        """Note what may make settings, and whether PostgreSQL leaves anything to the COMMIT."""
        await super().survey(connection)
        query = "SELECT EXISTS (SELECT FROM pg_constraint WHERE condeferrable)"
        self.are_deferrable = bool(await connection.scalar(sa.text(query)))
        self.flaw = await connection.scalar(sa.text(FLAWS))
        self.tells = await that_tell(connection)

    async def begin(self) -> Any:
        """Begin the transaction of a test, and set its savepoint, in one round trip."""
        if self.flaw:
            return None
        if self.connection is None or self.connection.closed:
            self.connection = await self.engine.connect()
        mine: Any = self.connection.sync_connection
        shared: Any = mine.connection.dbapi_connection
        await execute(shared.driver_connection, BEGIN)
        self.savepoint = Savepoint(shared, mine.connection, self.facts)
        self.connections.target = BY_ROLLBACK
        return self.connection

    async def end(self, connection: Any) -> str | None:
        """Roll back all that the test did."""
        test, self.savepoint = self.savepoint, None
        if test is None:
            return None
        if is_lost(test.shared) or not in_transaction(test.shared):
            ended = LOST if is_lost(test.shared) else ENDS
            if ended not in running().texts(RETRY):  # no statement of SQLAlchemy's has met it
                running().note(RETRY, ended)
            return ended
        left = [mine for mine in test.known if mine.is_valid and mine is not test.first]
        self.left += left
        for _ in left:
            running().note(LEFT, NEVER_GIVEN_BACK)
        script = f"{UNDO}; {VERIFY if test.by_text else ''}ROLLBACK"
        try:
            await execute(test.shared.driver_connection, script)
        except Exception as error:
            if sqlstate(error) in ONLY_HERE:  # the transaction is not ours any more
                running().note(RETRY, ENDS)
            raise
        if connection.in_transaction():  # for SQLAlchemy; nothing is sent
            await connection.rollback()
        mine: Any = connection.sync_connection
        if mine.get_execution_options() != self.engine.get_execution_options():
            await connection.close()  # it is not for the next test
        return None

    def note_checkout(self, new: Any, _record: object, mine: PoolProxiedConnection) -> None:
        """Let the test that runs know this connection as one of its own.

        Other tasks go on meanwhile, as they do while a pool connects: so two tasks that share a
        session fail as in production.
        """
        if self.savepoint:
            self.savepoint.known.setdefault(mine)
            try:
                new.run_async(lambda _: asyncio.sleep(0))
            except asyncio.CancelledError:  # the pool would close the connection: at the next await
                if task := asyncio.current_task():
                    task.uncancel()
                    task.cancel()

    def execute(self, name: str, *arguments: Any) -> bool:
        """Execute a statement in the savepoint of the test that runs."""
        if self.savepoint is None:
            refuse("a statement outside the transaction of a test.", what_to_ask_for())
        if running_loop() is not self.connections.loop:
            refuse(OTHER_LOOP)
        self.savepoint.execute(name, *arguments)
        return True

    def do_commit(self, mine: PoolProxiedConnection) -> None:
        """Commit to the savepoint, where the connection is one of the test's."""
        if self.savepoint and mine in self.savepoint.known:
            self.savepoint.commit(mine)

    def do_rollback(self, mine: PoolProxiedConnection) -> None:
        """Go back to the savepoint."""
        if self.savepoint:
            self.savepoint.roll_back(mine)

    def do_rollback_to_savepoint(self, connection: Any, name: str) -> None:
        """Roll a nested transaction back, unless production has no connection for it any more."""
        dialect, mine = connection.dialect, connection.connection
        if not (self.savepoint and mine in self.savepoint.cut_off):
            type(dialect).do_rollback_to_savepoint(dialect, connection, name)

    def change(self, _: object, value: Any) -> None:
        """Refuse what the transaction of a test cannot change any more."""
        if value:
            refuse_now = self.savepoint.refuse if self.savepoint else refuse
            refuse_now("isolation level and access mode of a test's transaction are fixed.")

    def get_driver_connection(self, of: Any) -> Any:
        """Refuse the connection of the driver, by which a session could work unseen."""
        if self.savepoint:
            self.savepoint.refuse("the driver's own connection.")
        return of.driver_connection

    def on_error(self, context: sa.ExceptionContext) -> None:
        """Keep the connection where work was cancelled; SQLAlchemy would take it for lost."""
        error = context.original_exception
        if isinstance(error, TimeoutError) or not isinstance(error, Exception):
            context.is_disconnect = False
            if self.savepoint and context.connection and not isinstance(error, Refusal):
                self.savepoint.cut_off.add(context.connection.connection)

    async def close(self) -> None:
        """Close the one connection."""
        await super().close()
        self.stand_ins = []
        engine, self.engine = self.engine, None
        if engine:
            await engine.dispose()
