"""Which server the tests run on, and whether it serves."""

import asyncio
import os
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from .drivers import sqlstate
from .embedded import PATIENCE, ROLE, embedded_server_url
from .guard import open_engine
from .project import project
from .record import Refusal, set_up_error

OLDEST = 15  # PostgreSQL that has pg_stat_force_next_flush
A_POOLER = "a pooler in transaction mode, such as pgbouncer, stands before it"


def place(url: sa.URL) -> object:
    """Return the host of a server, or the folder of its socket."""
    return url.host or url.query.get("host") or "the default host"


def server_url() -> tuple[sa.URL, str | None]:
    """Return the URL of TEST_DATABASE_URL, or start the embedded server and return its URL.

    With the latter comes the role of the application. Whatever driver the URL names, the tests use
    the application's.
    """
    given = os.environ.get("TEST_DATABASE_URL")
    fix = f"export TEST_DATABASE_URL={project().example_url}"
    try:
        url = embedded_server_url() if given is None else sa.make_url(given)
    except (sa.exc.ArgumentError, ValueError):  # their messages may show a password
        raise set_up_error("TEST_DATABASE_URL is not a database URL", fix) from None
    if url.get_backend_name() != "postgresql":
        problem = f"TEST_DATABASE_URL names {url.drivername}; PostgreSQL is needed"
        raise set_up_error(problem, fix)
    url = url.set(drivername=project().driver)
    try:
        create_async_engine(url)  # only loads the driver
    except (sa.exc.InvalidRequestError, ImportError) as error:
        problem = f"The driver {project().driver!r} cannot be used ({error})"
        fix = (
            f"pip install asyncpg; or name another asynchronous one: driver=..., {project().place}"
        )
        raise set_up_error(problem, fix) from error
    return url, ROLE if given is None else None


async def check_access(engine: AsyncEngine) -> None:
    """Refuse a server that cannot be used, or a role that may not create databases."""
    fix = "start the server, or correct the address: export TEST_DATABASE_URL="
    fix += project().example_url
    second = open_engine(engine.url, poolclass=NullPool)
    query = """
        SELECT rolname, rolcreatedb OR rolsuper AS may_create,
          current_setting('transaction_read_only') = 'on' AS read_only, pg_backend_pid() AS pid,
          current_setting('server_version_num')::int / 10000 AS version,
          current_setting('track_counts') = 'on' AS counts
        FROM pg_roles WHERE rolname = current_user
    """
    try:
        async with asyncio.timeout(PATIENCE), engine.connect() as first, second.connect() as other:
            role = (await first.exec_driver_sql(query)).one()
            pooled = role.pid == await other.scalar(sa.text("SELECT pg_backend_pid()"))
        found = (A_POOLER, fix) if pooled else problem_of(role, fix)
        if found is None:
            return
        problem, fix = found
    except TimeoutError:
        problem = f"no answer within {PATIENCE} s"
    except (Exception, Refusal) as error:  # noqa: BLE001 - a driver raises its own
        problem = str(original := getattr(error, "orig", error))
        if sqlstate(original) == "42P05":  # duplicate_prepared_statement
            problem = A_POOLER
    where = f"{place(engine.url)}:{engine.url.port or 5432}"
    raise set_up_error(f"PostgreSQL at {where} cannot be used: {problem}", fix)


def problem_of(role: Any, fix: str) -> tuple[str, str] | None:
    """Return what keeps a role or its server from being used, and how to mend it."""
    if role.version < OLDEST:
        return f"it is PostgreSQL {role.version}; {OLDEST} or newer is needed", fix
    if not role.counts:
        fix = "as a superuser: ALTER SYSTEM RESET track_counts; SELECT pg_reload_conf()"
        return "track_counts is off, and so it cannot tell what a test has changed", fix
    if role.read_only:
        return "it is read-only: a standby, or default_transaction_read_only is on", fix
    if not role.may_create:
        fix = f"as a superuser: ALTER ROLE {role.rolname} CREATEDB"
        return f"the role {role.rolname} may not create databases", fix
    return None


async def check_database(connection: Any, name: str) -> None:
    """Refuse a URL whose query leads elsewhere than its path: to a database that is not ours."""
    found = await connection.scalar(sa.text("SELECT current_database()"))
    if found != name:
        problem = f"TEST_DATABASE_URL connects to {found!r}, whatever database its path names"
        raise set_up_error(problem, "leave the database out of what follows its question mark")
