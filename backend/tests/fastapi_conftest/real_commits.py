"""The second path: real connections and real commits, deleted afterwards."""

from __future__ import annotations

from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection

from .cleaning import SEE_ALL, Cleaning
from .clone import Clone
from .drivers import ONE_CONNECTION, in_transaction, is_lost, settings_when_new
from .guard import open_engine

NEW_AGAIN = """
    CLOSE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES;
    SELECT pg_stat_force_next_flush();
    DO $$ DECLARE it text; BEGIN
      FOR it IN SELECT name FROM pg_prepared_statements WHERE from_sql
      LOOP EXECUTE format('DEALLOCATE %I', it); END LOOP;
    END $$
"""


class RealCommits(Clone):
    """Gives a test real connections with real commits, and deletes afterwards what it has left.

    connections: all that were opened, each with its process id and the script that makes it as good
        as new.
    out: those that somebody has and has not given back.
    was_handed_out: whether somebody had the driver's own connection in this test.
    """

    SETTINGS = ("lock_timeout = '5s'",)  # a test that waits for itself shall not wait for ever

    async def open(self) -> AsyncEngine:
        """Return an engine as the app makes it."""
        self.connections: dict[Any, tuple[int, str]] = {}
        self.out: dict[Any, PoolProxiedConnection] = {}
        engine = open_engine(self.url)
        listen = partial(sa.event.listen, engine.sync_engine)
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
        self.was_handed_out = True
        return of.driver_connection

    async def survey(self, connection: AsyncConnection) -> None:
        """Note what the seeding has left."""
        await super().survey(connection)
        self.cleaning = Cleaning()
        await self.cleaning.survey(connection)

    async def begin(self) -> AsyncConnection:
        """Let a test begin."""
        self.was_handed_out = False
        async with self.cleaner.connect() as cleaner:
            driver: Any = (await cleaner.get_raw_connection()).driver_connection
            await driver.execute(f"{SEE_ALL}; SELECT {self.restart}")
            await self.cleaning.note_catalogue(cleaner)
        connection: AsyncConnection = await self.engine.connect()
        return connection

    async def end(self, connection: AsyncConnection) -> str | None:
        """Delete what the test has committed, and verify that nothing else is left of it."""
        await connection.close()
        dirty = any(is_lost(each) or in_transaction(each) for each in self.connections)
        if self.out or self.was_handed_out or dirty:
            await self.close_connections()
        for each, (_, script) in self.connections.items():
            await each.driver_connection.execute(script)
            if hasattr(each.driver_connection, "commit"):  # psycopg has begun a transaction
                await each.driver_connection.commit()
        async with self.cleaner.connect() as cleaner:
            ours = [pid for pid, _ in self.connections.values()]
            return await self.cleaning.clean(cleaner, ours)

    async def close_connections(self) -> None:
        """Close the connections of the tests, also those that were never given back."""
        async with self.cleaner.connect() as cleaner:
            for mine in [each for each in self.out.values() if each.is_valid]:
                await cleaner.run_sync(partial(give_up, mine))
        await self.engine.dispose()
        self.connections.clear()
        self.out.clear()

    async def close(self) -> None:
        """Close the connection that cleans, too."""
        if self.engine:
            await self.close_connections()
            await self.cleaner.dispose()
        await super().close()


def give_up(mine: PoolProxiedConnection, _: object) -> None:
    """Close a connection that nobody has given back."""
    mine.invalidate()
