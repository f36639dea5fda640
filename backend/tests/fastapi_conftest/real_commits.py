"""The second path: real connections and real commits, deleted afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from .application import OUTSIDE, Opened, Target
from .cleaning import SEE_ALL, Cleaning
from .clone import Clone
from .drivers import ONE_CONNECTION
from .guard import open_engine
from .record import ENDS_THE_RUN, LEFT, running

PATIENCE = 20  # seconds to wait for a thread to give a connection back


class RealCommits(Clone):
    """Gives a test real connections with real commits, and deletes afterwards what it has left.

    own: the engine of `db_transaction`: of the application's kind, but not one of its engines,
        whose pool has limits.
    cleaner: the engine of the connection that cleans.
    """

    SETTINGS = ("lock_timeout = '5s'",)  # a test that waits for itself shall not wait for ever

    def __init__(self, *arguments: Any) -> None:
        """Describe it."""
        super().__init__(*arguments)
        self.own = like(self.connections.engines[0])
        self.connections.adopt(self.own.dialect)
        self.cleaner = open_engine(self.admin.own_url(self.name), **ONE_CONNECTION)

    async def survey(self, connection: Any) -> None:
        """Note what the seeding has left."""
        await super().survey(connection)
        self.cleaning = Cleaning()
        await self.cleaning.survey(connection)

    async def open(self, target: Target) -> None:
        """Leave it to the first test to connect."""

    async def begin(self) -> Any:
        """Let a test begin."""
        async with self.cleaner.connect() as cleaner:
            driver: Any = (await cleaner.get_raw_connection()).driver_connection
            await driver.execute(f"{SEE_ALL}; SELECT {self.restart}")
            await self.cleaning.note_catalogue(cleaner)
        self.connections.target = self.target or OUTSIDE
        connected: Any = self.own.connect()
        return await connected if isinstance(self.own, AsyncEngine) else connected

    async def end(self, connection: Any) -> str | None:
        """Delete what the test has committed, and verify that nothing else is left of it."""
        if isinstance(self.own, AsyncEngine):
            await connection.close()
        else:
            connection.close()
        await self.end_threads()
        async with self.cleaner.connect() as cleaner:
            ours = await self.connections.tidy(cleaner)
            return await self.cleaning.clean(cleaner, ours)

    async def end_threads(self) -> None:
        """Wait for threads that have a connection; then end its session, and the run."""
        for opened in await self.threads_after(PATIENCE):
            running().note(LEFT, f"{opened.thread}, which has a connection")
            await self.admin.run(f"SELECT pg_terminate_backend({opened.pid}, 1000)")
        for opened in await self.threads_after(PATIENCE):
            problem = f"{opened.thread} does not end, and has a connection of the test"
            running().note(ENDS_THE_RUN, problem)

    async def threads_after(self, seconds: float) -> list[Opened]:
        """Return the connections that threads do not give back within some time."""
        held = self.connections.held_by_threads()
        for _ in range(int(seconds * 100)):
            if not held:
                break
            await asyncio.sleep(0.01)
            held = self.connections.held_by_threads()
        return held

    async def close(self) -> None:
        """Close the connection that cleans, too."""
        await super().close()
        await self.cleaner.dispose()


def like(engine: Any) -> Any:
    """Return another engine of the same kind and driver, with a pool of its own."""
    make: Any = create_async_engine if isinstance(engine, AsyncEngine) else sa.create_engine
    return make(engine.url)
