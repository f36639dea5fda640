"""What creates and drops the databases of a process, and shows that the process lives.

A database is ours by its name and its CONNECTION LIMIT, which CREATE DATABASE sets in the same
step, so that no kill can leave one unmarked. It is in use for as long as somebody is connected to
it, or holds the advisory lock whose number is in its name.
"""

import secrets
from typing import Any

import sqlalchemy as sa

from .drivers import ONE_CONNECTION, is_lost
from .guard import open_engine
from .project import PREFIX

LIMIT = 1_000_271  # the CONNECTION LIMIT of our databases; arbitrary
HALF_DROPPED = -2  # the same, as PostgreSQL sets it when it begins to drop one
LOCK = 1_000_271  # first key of our advisory locks; the second is a process's, or 0 the builder's


class Administrator:
    """Creates and drops databases, and holds the lock of its process.

    A server that is given has one role for all. On the embedded one we are its superuser, and the
    application is not: so privileges are in force, and policies as for the owner of a table.
    """

    def __init__(self, url: sa.URL, owner: str | None = None) -> None:
        """Describe the connection, which is opened when it is needed.

        owner: the role of the application, where that is another one than ours.
        """
        self.owner = owner
        self.key = 1 + secrets.randbelow(2**31 - 1)
        self.connection: Any = None  # the last that was opened
        self.engine = open_engine(url, **ONE_CONNECTION | {"pool_pre_ping": True})
        sa.event.listen(self.engine.sync_engine, "connect", self.hold_lock)

    async def aclose(self) -> None:
        """Disconnect, and let the lock go."""
        await self.engine.dispose()

    def hold_lock(self, new: Any, _record: object) -> None:
        """Show that the process lives, for as long as it does."""
        self.connection = new
        script = f"""
            SET statement_timeout = 0; SET lock_timeout = 0; SET idle_session_timeout = 0;
            SELECT pg_advisory_lock_shared({LOCK}, {self.key})
        """
        new.run_async(lambda driver: driver.execute(script))

    async def stay_connected(self) -> None:
        """Take the lock again where the connection was lost, before another run finds it free."""
        if self.connection is None or is_lost(self.connection):
            await self.run("SELECT 1")

    def name(self, label: str) -> str:
        """Return the name of a database of this process."""
        return f"{PREFIX}_{self.key}_{label}"

    def own_url(self, database: str) -> sa.URL:
        """Return the URL of a database, for our role."""
        return self.engine.url.set(database=database)

    async def run(self, statement: str) -> None:
        """Run a statement outside a transaction."""
        async with self.engine.connect() as connection:
            await connection.exec_driver_sql(statement)

    async def ask(self, query: str, **bound: object) -> list[Any]:
        """Return the first column of what a query finds."""
        async with self.engine.connect() as connection:
            return list(await connection.scalars(sa.text(query), bound))

    async def create(self, name: str, template: str) -> None:
        """Create a database of the application's role that carries our mark."""
        owner = f"OWNER {self.owner}" if self.owner else ""
        options = f"TEMPLATE {template} CONNECTION LIMIT {LIMIT} {owner}"
        await self.run(f"CREATE DATABASE {name} {options}")

    def url(self, database: str) -> sa.URL:
        """Return the URL of a database, for the application's role."""
        url = self.engine.url.set(database=database)
        return url.set(username=self.owner) if self.owner else url

    async def drop(self, name: str) -> None:
        """Drop a database of ours; FORCE would ask for the right to end autovacuum's sessions."""
        end = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
        whose = "backend_type = 'client backend' AND pg_has_role(usesysid, 'USAGE')"
        await self.run(f"{end} WHERE datname = '{name}' AND {whose}")
        await self.run(f"DROP DATABASE IF EXISTS {name}")
