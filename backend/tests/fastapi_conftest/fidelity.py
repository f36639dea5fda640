"""Whether rollback can show what the application's own connections would show.

The one connection of rollback is opened as the application opens its own, by the first of its
engines. It cannot show another isolation level, autocommit, what only whole transactions have, nor
what the connections of another engine are like: where there is such a difference, as the server
tells it, all tests get real commits.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from .drivers import sqlstate

# What a driver, a client or a listener has set, and what a transaction is like.
SETTINGS = """
    SELECT name, setting FROM pg_settings
    WHERE source IN ('client', 'session')
      AND name !~ '^transaction_(isolation|read_only|deferrable)$'
    UNION ALL SELECT 'the role', current_user::text
    UNION ALL SELECT 'the isolation level', current_setting('transaction_isolation')
"""
OF_TRANSACTIONS = ("default_transaction_", "transaction_timeout")
# Events whose listeners execute the statements of others, or work on a connection unseen.
EXECUTES = ("do_execute", "do_executemany", "do_execute_no_params")
OF_JSON = ("_json_serializer", "_json_deserializer")
OF_A_POOL = ("checkout", "checkin", "reset")


def settings(connection: sa.Connection) -> dict[str, str]:
    """Return what a connection is like.

    It is asked unseen by the application's listeners, some of which work within a request only.
    """
    dbapi_connection: Any = connection.connection.dbapi_connection
    connects: Any = connection.engine.pool.dispatch.connect.listeners
    cursor = dbapi_connection.cursor()
    cursor.execute(SETTINGS)
    return dict(cursor.fetchall()) | {
        "autocommit": str(bool(dbapi_connection.autocommit)),
        "the driver": connection.dialect.driver,
        "the JSON functions": str([getattr(connection.dialect, name) for name in OF_JSON]),
        "the listeners of connect": str([it for it in connects if not is_of("sqlalchemy", it)]),
    }


def is_of(package: str, listener: Any) -> bool:
    """Tell whether a listener is a function of this package."""
    return str(getattr(listener, "__module__", "")).startswith(package)


async def flaw_of(engines: list[AsyncEngine]) -> str | None:
    """Return what rollback cannot show of these engines and their connections, if anything."""
    found: list[dict[str, str]] = []
    for engine in engines:
        if flaw := flaw_of_engine(engine.sync_engine):
            return flaw
        try:
            async with engine.connect() as connection:
                found.append(await connection.run_sync(settings))
        except Exception as error:
            if sqlstate(error) != "25006":  # read_only_sql_transaction, as the database is
                raise
            return "the application's listeners of connect create something"
    shown = {name: it for name, it in found[0].items() if not name.startswith(OF_TRANSACTIONS)}
    shown |= {"the isolation level": "read committed", "autocommit": "False"}
    for theirs in found:
        for name in sorted(shown.keys() | theirs.keys()):
            if shown.get(name) != theirs.get(name):
                return f"the application's connections have {name} {theirs.get(name)!r}"
    return None


def flaw_of_engine(engine: Any) -> str | None:
    """Return what an engine does with each connection that one shared connection cannot show."""
    options = engine.dialect.connection_characteristics.keys() & engine.get_execution_options()
    if options := options - {"logging_token"}:
        return f"the application's engine has the option {min(options)}"
    for target, names in (engine.dialect, EXECUTES), (engine.pool, OF_A_POOL):
        for name in names:
            listeners = getattr(target.dispatch, name)  # those of the classes among them
            if any(not is_of(__package__, it) for it in listeners):
                return f"the application's engine has a listener of {name}"
    return None
