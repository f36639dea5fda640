"""The first path: whatever a test commits is gone, by one ROLLBACK.

The engine of this clone has one connection. Its COMMIT and ROLLBACK are those of the savepoint of
the test that runs; without a test, whatever asks for a statement is refused.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import PoolProxiedConnection

from .application import BY_ROLLBACK, OTHER_LOOP, running_loop
from .clone import Clone
from .drivers import ONE_CONNECTION, in_transaction, is_lost, settings_when_new, sqlstate
from .fidelity import listeners_of, take_over
from .guard import ask, open_engine
from .pill import BEGIN, ENDS, ONLY_HERE, PREPARE, VERIFY
from .project import project
from .record import LEFT, NEVER_GIVEN_BACK, NOT_CALLED, RETRY, refuse, running
from .savepoint import LOST, UNDO, Facts, Savepoint
from .settings import that_tell_settings


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

    async def open(self, target: sa.URL) -> None:
        """Make the engine, whose one connection is as the application's are."""
        self.connection: AsyncConnection | None = None
        self.left: list[PoolProxiedConnection] = []
        self.engine = open_engine(target, **ONE_CONNECTION)
        sa.event.listen(self.engine.sync_engine, "connect", self.prepare)
        async with self.engine.connect() as own:  # from now on there is this one connection
            self.flaw = await take_over(own, self.connections.engines)
            await self.connections.end(own)
            settings, _ = await own.run_sync(lambda it: settings_when_new(it.connection))
            self.facts = Facts(settings, self.are_deferrable, *self.tell_settings)
        self.emulate(self.engine.sync_engine)
        if project().make_engine is create_async_engine:
            for listener in listeners_of(self.connections.engines):
                running().note(NOT_CALLED, f"the listener {listener}; make_engine=... can add it")

    def emulate(self, engine: Any) -> None:
        """Have commits and rollbacks of an engine be a savepoint's."""
        listen = partial(sa.event.listen, engine)
        listen("checkout", self.note_checkout)
        listen("handle_error", self.on_error)
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            listen(name, partial(self.execute, name))
        dialect: Any = engine.dialect
        for name in ("do_commit", "do_rollback", "get_driver_connection"):
            setattr(dialect, name, getattr(self, name))
        for name in ("set_isolation_level", "set_readonly", "set_deferrable"):
            setattr(dialect, name, self.not_in_a_test(getattr(dialect, name)))
        # An app that closes its pool must not close the one connection.
        engine.dispose = lambda *_, **__: None

    def prepare(self, new: Any, _record: object) -> None:
        """Make the pill and its functions on a new connection."""
        new.run_async(lambda driver: driver.execute(PREPARE.replace("@restart", self.restart)))

    async def survey(self, connection: AsyncConnection) -> None:
        """Note what may make settings, and whether PostgreSQL leaves anything to the COMMIT."""
        await super().survey(connection)
        query = "SELECT EXISTS (SELECT FROM pg_constraint WHERE condeferrable)"
        self.are_deferrable = bool(await connection.scalar(sa.text(query)))
        self.tell_settings = await that_tell_settings(connection)

    async def begin(self) -> AsyncConnection:
        """Begin the transaction of a test, and set its savepoint, in one round trip."""
        if self.connection is None or self.connection.closed:
            self.connection = await self.engine.connect()
        mine: Any = self.connection.sync_connection
        shared: Any = mine.connection.dbapi_connection
        await shared.driver_connection.execute(BEGIN)
        self.savepoint = Savepoint(shared, mine.connection, self.facts)
        self.connections.target = BY_ROLLBACK
        return self.connection

    async def end(self, connection: AsyncConnection) -> str | None:
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
        verify = VERIFY if test.by_text else ""
        script = f"{UNDO}; {verify}SELECT pg_advisory_unlock_all(); ROLLBACK"
        try:
            await test.shared.driver_connection.execute(script)
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

        Here others go on, as while a pool connects: two tasks that share a session fail as they
        would in production.
        """
        if self.savepoint:
            self.savepoint.known.setdefault(mine)
            try:
                new.run_async(lambda _: asyncio.sleep(0))
            except asyncio.CancelledError:  # the pool would close the connection: once more, later
                if task := asyncio.current_task():
                    task.uncancel()
                    task.cancel()

    def execute(self, name: str, *arguments: Any) -> bool:
        """Execute a statement in the savepoint of the test that runs."""
        if self.savepoint is None:
            refuse("a statement outside the transaction of a test.", ask())
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

    def not_in_a_test(self, change: Callable[..., None]) -> Callable[..., None]:
        """Have the dialect refuse what the transaction of a test cannot change any more."""

        def change_or_refuse(connection: Any, value: Any) -> None:
            if self.savepoint and self.savepoint.shared is connection and value:
                self.savepoint.refuse(
                    "isolation level and access mode of a test's transaction are fixed."
                )
            change(connection, value)

        return change_or_refuse

    def get_driver_connection(self, of: Any) -> Any:
        """Refuse the connection of the driver, by which a session could work unseen."""
        if self.savepoint:
            self.savepoint.refuse("the driver's own connection.")
        return of.driver_connection

    @staticmethod
    def on_error(context: sa.ExceptionContext) -> None:
        """Keep the connection when a request is cancelled; SQLAlchemy would take it for lost."""
        if not isinstance(context.original_exception, Exception):
            context.is_disconnect = False

    async def close(self) -> None:
        """Close the one connection."""
        await super().close()
        engine, self.engine = self.engine, None
        if engine:
            vars(engine.sync_engine).pop("dispose", None)  # which `emulate` has replaced
            await engine.dispose()
