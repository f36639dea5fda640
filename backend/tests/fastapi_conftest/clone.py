"""A database of this process, cloned from the template, in which one test at a time works.

A test must find its database as the seeding left it. Each path, rollback and real commits, sees to
that in its own way, in a database of its own, which is cloned when its first test needs it.
What is not verified to be clean after a test is cloned anew before the next one.
"""

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from .administrator import Administrator
from .application import OUTSIDE, Connections
from .guard import open_engine
from .project import project
from .record import CLONED, NOT_IN_FORCE, Refusal, running, set_up_error
from .server import check_database
from .template import Template

Seed = Callable[[Any], Any]  # of a session, which may be asynchronous or not
SEQUENCES = """
    SELECT format('SELECT %s, last_value, is_called FROM %s', seqrelid::oid, seqrelid::regclass)
    FROM pg_sequence
"""

ABOVE_POLICIES = """
    SELECT rolname FROM pg_roles WHERE rolname = coalesce(:owner, current_user)
      AND (rolsuper OR rolbypassrls) AND EXISTS (SELECT FROM pg_policy)
"""
# What CREATE DATABASE does not copy from its template: settings and privileges of the database.
OF_THE_DATABASE = """
    WITH it AS (SELECT * FROM pg_database WHERE datname = :source)
    SELECT format('ALTER %s SET %I = %s',
      CASE WHEN setrole = 0 THEN format('DATABASE %I', :to ::text)
        ELSE format('ROLE %I IN DATABASE %I', pg_get_userbyid(setrole), :to ::text) END,
      name, CASE WHEN name IN ('search_path', 'temp_tablespaces', 'session_preload_libraries',
        'local_preload_libraries') THEN replace(value, '""', quote_literal(''))
        ELSE quote_literal(value) END)
    FROM pg_db_role_setting, unnest(setconfig) AS setting, split_part(setting, '=', 1) AS name,
      substr(setting, strpos(setting, '=') + 1) AS value, it WHERE setdatabase = it.oid
    UNION ALL SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', :to ::text)
    FROM it WHERE datacl IS NOT NULL
    UNION ALL SELECT format('GRANT %s ON DATABASE %I TO %s', privilege_type, :to ::text,
      CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
    FROM it, aclexplode(datacl)
"""


class Clone(ABC):
    """A database in which one test at a time works.

    target: the URL for the application, while there is a clone that is clean; another object for
        each clone.
    """

    SETTINGS: tuple[str, ...] = ()  # for ALTER DATABASE ... SET, once it is seeded

    def __init__(
        self, label: str, template: Template, admin: Administrator, connections: Connections
    ) -> None:
        """Describe it; it is made when the first test needs it."""
        self.name, self.template = admin.name(label), template.name
        self.admin, self.connections = admin, connections
        self.seeds: list[Seed] = []
        self.target: sa.URL | None = None
        self.ending: asyncio.Task[Any] | None = None

    async def start_test(self) -> Any:
        """Let a test work on a clean database; return its own connection."""
        await self.admin.stay_connected()
        if self.ending:  # pytest-timeout has interrupted it
            self.ending.cancel()
            await asyncio.wait([self.ending])
        if self.target is None:
            await self.clone()
        try:
            return await self.begin()
        except Exception as error:  # noqa: BLE001 - the server was restarted, for instance
            running().note(CLONED, first_line(error))
            await self.clone()
            return await self.begin()

    async def end_test(self, connection: Any) -> None:
        """Clean up after the test; give the clone up where it is not verified to be clean."""
        self.ending = asyncio.current_task()
        target, self.target = self.target, None
        try:
            cause = await self.end(connection)
        except (Exception, Refusal) as error:  # noqa: BLE001 - nothing is verified
            cause = first_line(error)
        self.connections.target, self.ending = OUTSIDE, None
        if cause:
            running().note(CLONED, cause)
            await self.close()
        else:
            self.target = target

    async def clone(self) -> None:
        """Clone the template, and seed the clone by the application's own sessions."""
        await self.drop()
        await self.admin.create(self.name, self.template)
        for statement in await self.admin.ask(OF_THE_DATABASE, source=self.template, to=self.name):
            await self.admin.run(statement)
        engine = open_engine(self.admin.own_url(self.name))
        self.connections.target = target = self.admin.url(self.name)
        try:
            async with engine.connect() as connection:
                await check_database(connection, self.name)
            for seed in self.seeds:
                await run_seed(seed)
            async with engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await self.survey(connection)
                await self.connections.end(connection)
            for setting in ("synchronous_commit = off", *self.SETTINGS):
                await self.admin.run(f"ALTER DATABASE {self.name} SET {setting}")
            await self.open(target)
        finally:
            self.connections.target = OUTSIDE
            await engine.dispose()
        self.target = target

    async def survey(self, connection: AsyncConnection) -> None:
        """Note where the sequences stand, which no rollback moves back, and who is above policies.

        connection: in autocommit, so that thousands of tables do not fill the table of locks.
        """
        for role in await connection.scalars(sa.text(ABOVE_POLICIES), {"owner": self.admin.owner}):
            running().note(NOT_IN_FORCE, f"the role {role} is above it: name another for the tests")
        queries = " UNION ALL ".join(await connection.scalars(sa.text(SEQUENCES)))
        rows = (await connection.execute(sa.text(queries))).all() if queries else []
        values = ", ".join(f"({oid}, {last}, {called})" for oid, last, called in rows)
        setval = f"count(setval(s::oid::regclass, n, c)) FROM (VALUES {values}) AS _ (s, n, c)"
        self.restart = setval if rows else "1"

    async def drop(self) -> None:
        """Drop it, if it was ever made."""
        await self.close()
        await self.admin.drop(self.name)

    async def close(self) -> None:
        """Close all connections to it; the next test finds a new clone."""
        self.target = None
        async with self.admin.engine.connect() as connection:
            await self.connections.end(connection)

    async def open(self, target: sa.URL) -> None:  # noqa: B027 - not each path needs to
        """Connect to a new clone."""

    # What each path does in its own way:

    @abstractmethod
    async def begin(self) -> Any:
        """Start a test; return its own connection."""

    @abstractmethod
    async def end(self, connection: Any) -> str | None:
        """Clean up after a test; return why the database is not clean, if so."""


def first_line(error: BaseException) -> str:
    """Return what an error says, without SQLAlchemy's part of it."""
    return str(getattr(error, "orig", error)).partition("\n")[0] or repr(error)


async def run_seed(seed: Seed) -> None:
    """Run a seeding function in a session of the application, of the kind that it awaits."""
    is_async = inspect.iscoroutinefunction(inspect.unwrap(seed))
    kind = "asynchronous" if is_async else "synchronous"
    factories = (it for it in project().sessions if issubclass(it.class_, AsyncSession) is is_async)
    if not (factory := next(factories, None)):
        problem = f"{seed!r} is {kind}, and no factory in sessions=[...] makes {kind} sessions"
        fix = f"write it for the other kind of session, or add a factory, {project().place}"
        raise set_up_error(problem, fix)
    try:
        if is_async:
            async with factory() as session:
                await seed(session)
                if session.in_transaction():  # it may have committed
                    await session.commit()
        else:
            with factory() as session:
                refuse_awaitable(seed(session))
                if session.in_transaction():
                    session.commit()
    except Exception as error:
        problem = f"{seed!r} failed: {error!r}"
        raise set_up_error(
            problem, f"correct what seed_once is given in {project().conftest}"
        ) from error


def refuse_awaitable(result: object) -> None:
    """Refuse what an asynchronous function in a lambda has returned: it has written nothing."""
    if inspect.isawaitable(result):
        raise TypeError("it returns what must be awaited: write it as `async def`")
