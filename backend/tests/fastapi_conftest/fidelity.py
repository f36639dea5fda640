"""Whether rollback can show what the application's own connections would show.

The one connection of rollback is opened as the application opens its own, by the first of its
engines. It cannot show another isolation level, autocommit, what only whole transactions have, nor
what the connections of another engine are like: where there is such a difference, as the server
tells it, all tests get real commits.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

# What a driver, a client or a listener has set, and what a transaction is like.
SETTINGS = """
    SELECT name, setting FROM pg_settings
    WHERE source IN ('client', 'session')
      AND name !~ '^transaction_(isolation|read_only|deferrable)$'
    UNION ALL SELECT 'the role', current_user::text
    UNION ALL SELECT 'the isolation level', current_setting('transaction_isolation')
"""
OF_TRANSACTIONS = ("default_transaction_", "transaction_timeout")


def settings(connection: sa.Connection) -> dict[str, str]:
    """Return what a connection is like.

    It is asked unseen by the application's listeners, some of which work within a request only.
    """
    dbapi_connection: Any = connection.connection.dbapi_connection
    cursor = dbapi_connection.cursor()
    cursor.execute(SETTINGS)
    return dict(cursor.fetchall()) | {
        "autocommit": str(bool(dbapi_connection.autocommit)),
        "the driver": connection.dialect.driver,
    }


async def flaw_of(engines: list[AsyncEngine]) -> str | None:
    """Return what rollback cannot show of the connections of these engines, if anything."""
    found: list[dict[str, str]] = []
    for engine in engines:
        async with engine.connect() as connection:
            found.append(await connection.run_sync(settings))
    shown = {name: it for name, it in found[0].items() if not name.startswith(OF_TRANSACTIONS)}
    shown |= {"the isolation level": "read committed", "autocommit": "False"}
    for theirs in found:
        for name in sorted(shown.keys() | theirs.keys()):
            if shown.get(name) != theirs.get(name):
                return f"the application's connections have {name} {theirs.get(name)!r}"
    return None
