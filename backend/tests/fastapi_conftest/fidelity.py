"""Whether rollback can show what the application's own connections would show.

By rollback the tests work on an engine of ours. The settings of the application's connections, by
whatever argument or listener they were made, are taken over by ours, as the server tells them.
Where a difference is left, such as the isolation level, all tests get real commits. Event listeners
of the application's engine do not fire on ours: they are named in the report.
"""

import inspect
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

# What a driver, a client or a listener has set, and what a transaction is like.
SETTINGS = """
    SELECT name, setting FROM pg_settings
    WHERE source IN ('client', 'session')
      AND name !~ '^transaction_(isolation|read_only|deferrable)$'
    UNION ALL SELECT 'the role', current_user::text
    UNION ALL SELECT 'the isolation level', current_setting('transaction_isolation')
"""


def settings(connection: sa.Connection) -> dict[str, str]:
    """Return what a connection is like."""
    found = {str(name): str(value) for name, value in connection.execute(sa.text(SETTINGS))}
    dbapi_connection: Any = connection.connection.dbapi_connection
    found["autocommit"] = str(bool(dbapi_connection.autocommit))
    return found


async def take_over(ours: AsyncConnection, engines: list[Any]) -> str | None:
    """Give our connection the settings of the application's; return what stays different.

    ours: in AUTOCOMMIT for the driver, because its transactions are the savepoint's.
    """
    found: list[dict[str, str]] = []
    for engine in engines:
        if isinstance(engine, AsyncEngine):
            async with engine.connect() as connection:
                found.append(await connection.run_sync(settings))
            await set_all(ours, found[-1])
    own = await ours.run_sync(settings) | {"autocommit": "False"}
    for theirs in found:  # of which the last has won
        for name in sorted(own.keys() | theirs.keys()):
            if own.get(name) != theirs.get(name):
                return f"the application's connections have {name} {theirs.get(name)!r}"
    return None


async def set_all(ours: AsyncConnection, theirs: dict[str, str]) -> None:
    """Make these settings on our connection, those that can be made."""
    for name, value in theirs.items():
        if name.startswith(("default_transaction_", "transaction_timeout")):
            continue  # what only real transactions have
        with suppress(sa.exc.DBAPIError):
            set_one = sa.text("SELECT set_config(:name, :value, false)")
            await ours.execute(set_one, {"name": name, "value": value})


def listeners_of(engines: list[Any]) -> Iterator[str]:
    """Yield the event listeners of engines, without SQLAlchemy's own and those that connect."""
    for engine in engines:
        sync_engine = getattr(engine, "sync_engine", engine)
        for target in (sync_engine, sync_engine.pool, sync_engine.dialect):
            names: set[str] = set(target.dispatch._event_names)  # noqa: SLF001 - no other list
            for name in sorted(names - {"do_connect"}):
                for listener in getattr(getattr(target.dispatch, name), "listeners", ()):
                    it: Any = listener
                    if inspect.isfunction(listener):  # where SQLAlchemy has wrapped another
                        it = inspect.getclosurevars(listener).nonlocals.get("orig_fn", listener)
                    it = it if hasattr(it, "__qualname__") else type(it)
                    if not it.__module__.startswith("sqlalchemy"):
                        yield f"{it.__module__}.{it.__qualname__} ({name})"
