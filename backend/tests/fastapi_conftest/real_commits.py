"""The second path: real connections and real commits, deleted afterwards.

All rows younger than the seeding are deleted in one statement, and then it is verified that nothing
else has changed, by the server's own counters: no list of what can keep a row from being deleted
would be complete.
"""

import asyncio
import gc
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .application import OUTSIDE, Opened, for_the_test
from .clone import Clone
from .drivers import ONE_CONNECTION, sqlstate
from .guard import open_engine
from .record import ENDS_THE_RUN, LEFT, running

PATIENCE = 20  # seconds to wait for a thread to give a connection back
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
    SELECT 'stray', concat('SELECT pg_terminate_backend(', pid, ', 1000)'), 0 FROM pg_stat_activity
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
AT_ONCE = 100  # tables in one query, each of which takes places in the server's table of locks


class RealCommits(Clone):
    """Gives a test real connections with real commits, and deletes afterwards what it has left.

    own: the engine of `db_transaction`: like the application's first one, with a pool of its own.
    cleaner: the engine of the connection that cleans.
    """

    SETTINGS = ("lock_timeout = '5s'",)  # a test that waits for itself shall not wait for ever

    def __init__(self, *arguments: Any) -> None:
        """Describe it."""
        super().__init__(*arguments)
        engine = self.connections.engines[0]
        first = getattr(engine, "sync_engine", engine)
        own = for_the_test(first, first.dialect.get_pool_class(first.url), first.dialect)
        self.own = AsyncEngine(own) if isinstance(engine, AsyncEngine) else own
        self.cleaner = open_engine(self.admin.own_url(self.name), **ONE_CONNECTION)

    async def survey(self, connection: Any) -> None:
        """Note what the seeding has left."""
        await super().survey(connection)
        self.cleaning = Cleaning()
        await self.cleaning.survey(connection)

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
        for opened in await self.threads_that_stay():
            running().note(LEFT, f"{opened.thread}, which has a connection")
            await self.admin.run(f"SELECT pg_terminate_backend({opened.pid}, 1000)")
        for opened in await self.threads_that_stay():
            problem = f"{opened.thread} does not end, and has a connection of the test"
            running().note(ENDS_THE_RUN, problem)

    async def threads_that_stay(self) -> list[Opened]:
        """Return the connections that threads do not give back within some time."""
        if self.connections.held_by_threads():
            gc.collect()  # what nobody has closed, and nobody uses any more
        for _ in range(PATIENCE * 100):
            if not self.connections.held_by_threads():
                break
            await asyncio.sleep(0.01)
        return self.connections.held_by_threads()

    async def close(self) -> None:
        """Close the connection that cleans, too."""
        await super().close()
        await self.cleaner.dispose()


class Cleaning:
    """What one clone was like when it was seeded, and how to make it so again.

    looks: the queries that find rows, strays, and how often seeded tables have been changed.
    young: for each table, which of its rows are younger than the seeding.
    scan: for each seeded table, the query for young rows, and whether all others are there.
    unchanged: how often each seeded table had been changed when it was last found clean.
    catalogue: the counters of the catalogue before the first test.
    """

    def __init__(self) -> None:
        """Begin without a table."""
        self.looks, self.young, self.scan = [STRAYS], dict[str, str](), dict[str, str]()
        self.unchanged: dict[str, int] = {}
        self.has_foreign_table = False
        self.catalogue: Any = None

    async def survey(self, connection: AsyncConnection) -> None:
        """Note what the seeding has left, as queries for what differs from it."""
        seeding = await connection.scalar(sa.text("SELECT pg_current_xact_id()::xid::text"))
        young = f"age(xmin) <= (SELECT age('{seeding}'::xid))"
        tables: Any = (await connection.execute(sa.text(TABLES))).all()
        for name, oid, is_foreign in tables:
            if is_foreign:
                self.has_foreign_table = True
                continue
            literal = name.replace("'", "''")
            count = await connection.scalar(sa.text(f"SELECT count(*) FROM ONLY {name}"))
            if count:
                self.young[name] = f"WHERE {young}"
                sums = f"count(*) FILTER (WHERE {young}), count(*) FILTER (WHERE NOT {young})"
                self.scan[name] = f"SELECT {sums} = {count} FROM ONLY {name}"
                changed = CHANGED.replace("@oid", str(oid))
                self.looks.append(f"SELECT 'seeded', '{literal}', {changed}")
            else:
                self.young[name] = ""
                there = f"WHERE EXISTS (SELECT FROM ONLY {name})"
                self.looks.append(f"SELECT 'row', '{literal}', 0 {there}")
        starts = range(0, len(self.looks), AT_ONCE)
        self.looks = [" UNION ALL ".join(self.looks[at : at + AT_ONCE]) for at in starts]

    async def note_catalogue(self, cleaner: AsyncConnection) -> None:
        """Note the counters of the catalogue, before the first test."""
        if self.catalogue is None:
            self.catalogue = (await cleaner.exec_driver_sql(CATALOGUE)).one()

    async def clean(self, cleaner: AsyncConnection, ours: Iterable[int]) -> str | None:
        """Make the database as it was seeded; return why it is not, if so.

        ours: the process ids of the sessions that may go on.
        """
        if self.has_foreign_table:
            return "a foreign table, whose rows are not ours to delete"
        try:
            cause = await self.delete(cleaner, ", ".join(["0", *map(str, ours)]))
        except sa.exc.ProgrammingError as error:
            if sqlstate(error.orig) != "42P01":  # undefined_table
                raise
            cause = DDL
        same = (await cleaner.exec_driver_sql(CATALOGUE)).one() == self.catalogue
        return cause or (None if same else DDL)

    async def delete(self, cleaner: AsyncConnection, ours: str) -> str | None:
        """End what still works, delete what is younger than the seeding; say what forbids it."""
        driver: Any = (await cleaner.get_raw_connection()).driver_connection
        for _ in range(4):  # strays, rows, rows that triggers have written meanwhile, nothing
            found: list[Any] = []
            for look in self.looks:
                found += (await cleaner.exec_driver_sql(look.replace("@ours", ours))).all()
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
