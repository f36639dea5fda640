"""What is asked of a connection and done with it, alike for asyncpg, psycopg and psycopg2."""

import asyncio
from typing import Any

from sqlalchemy.pool import StaticPool

# Options of an engine with one connection, in which the driver begins no transactions of its own.
ONE_CONNECTION: dict[str, Any] = {"poolclass": StaticPool, "isolation_level": "AUTOCOMMIT"}
RESET = "RESET ALL; RESET SESSION AUTHORIZATION; RESET ROLE"
# RESET undoes also what event listeners of the app have set, so that is set again.
SETTINGS_WHEN_NEW = f"""
    SELECT concat_ws('; ', '{RESET}', string_agg(format('SELECT set_config(%L, %L, false)', name,
      setting), '; '), CASE WHEN current_user <> session_user THEN format('SET ROLE %I',
      current_user) END), pg_backend_pid()
    FROM pg_settings WHERE source = 'session'
      AND name !~ '^transaction_(isolation|read_only|deferrable)$'
"""


def settings_when_new(dbapi_connection: Any) -> tuple[str, int]:
    """Return the script that gives a connection its present settings again, and its process id."""
    cursor = dbapi_connection.cursor()
    cursor.execute(SETTINGS_WHEN_NEW)
    script, pid = cursor.fetchone()
    dbapi_connection.commit()  # where the driver has begun a transaction, with a listener's SET
    return script, pid


def sqlstate(error: Any) -> str | None:
    """Return the code of an error of the server.

    SQLAlchemy 2.1 leaves it out of an error about a prepared statement, but not out of its cause.
    psycopg2 has another name for it.
    """
    own = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return own or getattr(error.__cause__, "sqlstate", None)


def is_lost(dbapi_connection: Any) -> bool:
    """Tell whether a connection is closed, without asking the server."""
    driver = driver_of(dbapi_connection)
    return bool(driver.is_closed() if hasattr(driver, "is_closed") else driver.closed)


def in_transaction(dbapi_connection: Any) -> bool:
    """Tell whether a connection is in a transaction, without asking the server."""
    driver = driver_of(dbapi_connection)
    if hasattr(driver, "is_in_transaction"):
        return bool(driver.is_in_transaction())
    return bool(driver.info.transaction_status)


def driver_of(dbapi_connection: Any) -> Any:
    """Return the driver's own connection; that of a synchronous driver has no adapter."""
    return getattr(dbapi_connection, "driver_connection", dbapi_connection)


def execute(driver: Any, script: str) -> Any:
    """Send a script in one round trip; a psycopg that prepares each statement must not do so."""
    options = {"prepare": False} if hasattr(driver, "prepare_threshold") else {}
    return driver.execute(script, **options)


async def run_script(dbapi_connection: Any, script: str) -> None:
    """Run a script outside of a transaction."""
    driver = driver_of(dbapi_connection)
    if hasattr(dbapi_connection, "driver_connection"):
        await execute(driver, script)
        if hasattr(driver, "commit"):  # psycopg has begun a transaction
            await driver.commit()
    else:
        execute(driver if hasattr(driver, "execute") else driver.cursor(), script)
        driver.commit()


async def finish(work: Any) -> Any:
    """Await something to its end, also where the task that wants it is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
