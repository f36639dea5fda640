"""A database of this process, cloned from the template, in which one test at a time works.

A test must find its database as the seeding left it. There are two ways to see to that, by rollback
and with real commits; each has a database of its own, which is cloned when its first test needs it.
What is not verified to be clean after a test is cloned anew before the next one.
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from .administrator import Administrator
from .guard import open_engine
from .project import project
from .record import CLONED, running
from .refusals import Refusal, refuse
from .server import check_database
from .template import Template

Seed = Callable[[AsyncSession], Awaitable[Any]]
SEQUENCES = """
    SELECT format('SELECT %s, last_value, is_called FROM %s', seqrelid::oid, seqrelid::regclass)
    FROM pg_sequence
"""


class Clone(ABC):
    """A database in which one test at a time works."""

    SETTINGS: tuple[str, ...] = ()  # for ALTER DATABASE ... SET, once it is seeded

    def __init__(self, label: str, template: Template, admin: Administrator) -> None:
        """Describe it; it is made when the first test needs it."""
        self.name, self.template = admin.name(label), template.name
        self.admin = admin
        self.seeds: list[Seed] = []
        self.url = admin.engine.url.set(database=self.name)
        self.engine: Any = None  # while there is a clone that is clean
        self.loop = asyncio.get_running_loop()

    async def start_test(self) -> AsyncConnection:
        """Let a test work on a clean database; return its own connection."""
        await self.admin.stay_connected()
        if self.engine is None:
            await self.clone()
        try:
            return await self.begin()
        except Exception:  # noqa: BLE001 - the server was restarted, or another run has swept it
            await self.clone()
            return await self.begin()

    async def end_test(self, connection: AsyncConnection) -> None:
        """Clean up after the test; give the clone up where it is not verified to be clean."""
        try:
            cause = await self.end(connection)
        except (Exception, Refusal) as error:  # noqa: BLE001 - nothing is verified
            cause = str(getattr(error, "orig", error)).partition("\n")[0] or repr(error)
        if cause:
            running().note(CLONED, cause)
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
            for seed in self.seeds:
                async with project().sessions[0](bind=engine, binds={}) as session:
                    await seed(session)
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
        """Close all connections to it; the next test finds a new clone."""
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
            refuse("a statement on another event loop than that of the test's connection.", advice)

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
