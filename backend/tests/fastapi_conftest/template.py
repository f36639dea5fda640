"""The schema, created once in a template database: for all tests, workers and runs.

With xdist the controller prepares it before the workers start, and they only clone. The template is
sealed, so that no clone has to wait for somebody who is connected to it. Its comment says of what
schema it is, by a digest, and when it was last used: it is dropped a day after that. What a killed
run has left is dropped when the next run starts; a live run, or a database of somebody else, is
left alone.
"""

import asyncio
import hashlib
import inspect
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from .administrator import HALF_DROPPED, LIMIT, LOCK, Administrator
from .drivers import sqlstate
from .guard import open_engine, open_to_everybody
from .project import PREFIX, VERSION, project
from .record import Refusal, SetUpError, set_up_error
from .server import check_access, check_database, place, server_url

CREATE_ROLE = """
    DO $$ BEGIN CREATE ROLE {} LOGIN CREATEDB CREATEROLE;
    EXCEPTION WHEN duplicate_object THEN NULL; END $$
"""
# Seconds since a template was used, as its comment says.
LAST_USED = r"""
    extract(epoch FROM now())
      - substring(shobj_description(oid, 'pg_database') FROM ' (\d{1,12})$')::bigint
"""
KEPT = 86_400  # such seconds, in which no run drops it
BUILDERS_PATIENCE = 300  # seconds to wait while another run builds its schema; arbitrary


class Template(NamedTuple):
    """The server, the template database on it, and what the report says of both."""

    url: str
    name: str
    header: str
    tables: list[str]  # of the models that it was built from
    owner: str | None  # the role of the application, where that is another one than ours

    def administrator(self) -> Administrator:
        """Return what creates and drops databases on the server."""
        return Administrator(sa.make_url(self.url), self.owner)


async def prepare(*, rebuild: bool) -> Template:
    """Find or start the server, drop what killed runs left on it, find or build the template."""
    started = time.perf_counter()
    url, owner = server_url()
    async with aclosing(Administrator(url, owner)) as admin:
        await check_access(admin.engine)
        wanted = f"{PREFIX} {fingerprint()}"
        name = None if rebuild else await find_template(admin, wanted)
        if name is None:
            await wait_for_other_builders(admin)
            if owner:
                await admin.run(CREATE_ROLE.format(owner))
            name = None if rebuild else await find_template(admin, wanted)
        state = "cached" if name else "built"
        name = name or await build_template(admin, wanted)
        swept = await sweep(admin)
        (number,) = await admin.ask("SHOW server_version")
    header = f"database: PostgreSQL {number.partition(' ')[0]} at {place(url)}, schema {state}"
    header += f", {swept} left-over databases dropped" if swept else ""
    header += f", ready in {(time.perf_counter() - started) * 1000:.0f} ms"
    url_text = url.render_as_string(hide_password=False)
    return Template(url_text, name, header, sorted(project().metadata.tables), owner)


async def wait_for_other_builders(admin: Administrator) -> None:
    """Be the only run that builds a schema, of those that name this database, until the end."""
    try:
        async with asyncio.timeout(BUILDERS_PATIENCE):
            await admin.run(f"SELECT pg_advisory_lock({LOCK}, 0)")
    except TimeoutError:
        problem = f"Another run has been building a schema for {BUILDERS_PATIENCE} s"
        holder = f"pg_locks WHERE locktype = 'advisory' AND (classid, objid) = ({LOCK}, 0)"
        fix = f"wait for it; or end it: SELECT pg_terminate_backend(pid) FROM {holder}"
        raise set_up_error(problem, fix) from None


def fingerprint() -> str:
    """Return a digest of what the schema is made of, and of the version of this folder."""
    told = project()
    if not (told.metadata.tables or told.create_schema):
        problem = "metadata has no tables"
        raise set_up_error(problem, f"import the models above isolate(...) in {told.conftest}")
    parts = [VERSION]
    if told.create_schema:
        parts.append(source_of(inspect.getmodule(inspect.unwrap(told.create_schema))))
    parts += sorted(ddl_of(told.metadata))  # a table's indexes are a set
    digest = hashlib.sha256("".join(parts).encode())
    for path in sorted(map(Path, told.schema_files)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def source_of(function: Any) -> str:
    """Return the source of a function, by whose change the schema is built anew."""
    try:
        return inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError):
        problem = f"The schema is made by {function!r}, whose source cannot be read"
        raise set_up_error(problem, "write it as a function, in a file") from None


def ddl_of(metadata: sa.MetaData) -> list[str]:
    """Return the statements that create these tables, and those of their listeners."""
    statements: list[str] = []

    def collect(statement: Any, *parameters: object) -> None:
        try:
            ddl = (
                statement
                if isinstance(statement, str)
                else statement.compile(dialect=recorder.dialect)
            )
        except sa.exc.CompileError:  # a literal that only a server can render
            parts = getattr(statement.element, "expressions", ())
            ddl = f"{statement.element.name} {[*map(str, parts)]}"
        statements.append(f"{ddl} {parameters}")

    recorder: Any = sa.create_mock_engine("postgresql://", collect)
    recorder.exec_driver_sql = collect  # for listeners that are functions
    try:
        metadata.create_all(recorder)
    except Exception:  # noqa: BLE001 - a listener asks the server, which is not there
        statements = [*listeners_of(metadata)]
        for table in metadata.tables.values():
            for element in (CreateTable(table), *map(CreateIndex, table.indexes)):
                collect(element)
            statements += [repr(column.type) for column in table.columns]  # enums, for instance
    return statements


def listeners_of(metadata: sa.MetaData) -> Iterator[str]:
    """Yield the source of what listens to the making of tables, but for SQLAlchemy's own."""
    for target in (metadata, *metadata.tables.values()):
        for event in ("before_create", "after_create"):
            for listener in getattr(target.dispatch, event):
                it: Any = getattr(listener, "func", listener)
                if isinstance(it, sa.DDL):
                    yield f"{it.statement} {it.context}"
                elif isinstance(it, ExecutableDDLElement):
                    yield str(it)
                elif not str(it.__module__).startswith("sqlalchemy"):
                    yield source_of(it)


async def find_template(admin: Administrator, wanted: str) -> str | None:
    """Return this role's newest sealed template of this schema, and note that it is in use.

    One that was last used a day ago may be dropped at any moment, and is not taken.
    """
    query = f"""
        SELECT datname FROM pg_database
        WHERE datistemplate AND NOT datallowconn AND datconnlimit = :limit
          AND pg_get_userbyid(datdba) = coalesce(:owner, current_user)
          AND starts_with(shobj_description(oid, 'pg_database'), :wanted)
          AND {LAST_USED} < {KEPT - 60}
        ORDER BY oid DESC LIMIT 1
    """
    for name in await admin.ask(query, limit=LIMIT, wanted=wanted, owner=admin.owner):
        with suppress(sa.exc.DBAPIError):  # another run notes the same at this moment
            await comment(admin, name, wanted)
        return str(name)
    return None


async def comment(admin: Administrator, name: str, wanted: str) -> None:
    """Write on a template what schema it holds and when it was last used."""
    # The server's clock, which no test has frozen.
    (now,) = await admin.ask("SELECT extract(epoch FROM now())::bigint")
    await admin.run(f"COMMENT ON DATABASE {name} IS '{wanted} {now}'")


async def build_template(admin: Administrator, wanted: str) -> str:
    """Create the schema in a database of its own, and seal it."""
    name, seal = admin.name("template"), "IS_TEMPLATE true ALLOW_CONNECTIONS false"
    await admin.create(name, "template0")
    engine = open_engine(admin.url(name))
    create_schema = project().create_schema or project().metadata.create_all
    try:
        with open_to_everybody(name), nothing_else_changed():
            async with engine.connect() as empty_database:
                await check_database(empty_database, name)
                await empty_database.exec_driver_sql("SET statement_timeout = 0")
                await empty_database.commit()  # so that migrations have transactions of their own
                await empty_database.run_sync(create_schema)
                await empty_database.commit()
    except SetUpError:
        raise
    except (Exception, Refusal) as error:
        raise schema_error(error) from error
    finally:
        await engine.dispose()
    await comment(admin, name, wanted)
    await admin.run(f"ALTER DATABASE {name} WITH {seal}")
    return name


def schema_error(error: BaseException) -> SetUpError:
    """Return the error that ends the run where the schema cannot be created."""
    fix = f"create_schema=..., {project().place}"
    if isinstance(error, Refusal) or "event loop" in str(error):
        fix = (
            "use the connection that create_schema is given; with Alembic, env.py finds it in "
            'context.config.attributes["connection"]'
        )
    if sqlstate(getattr(error, "orig", error)) == "0A000" and "is not available" in str(error):
        fix = (
            "install the extension on the server; the embedded server has those of its wheel, so "
            f"for another: export TEST_DATABASE_URL={project().example_url}"
        )
    if "multiple commands" in str(error):
        fix = (
            "asyncpg runs one statement at a time: split them; or, with psycopg installed, "
            f'driver="postgresql+psycopg", {project().place}'
        )
    if sqlstate(getattr(error, "orig", error)) == "42710" and 'role "' in str(error):
        fix = (
            "a role belongs to the whole server, and is there after the first run: in the schema "
            "write DO $$ BEGIN CREATE ROLE ...; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
    return set_up_error(f"create_schema failed: {error!r}", fix)


@contextmanager
def nothing_else_changed() -> Iterator[None]:
    """Put back what building the schema changes in this process, such as Alembic's fileConfig.

    Else the outcome of a test would depend on whether its run has built the schema.
    """
    with ExitStack() as stack:
        # Last of all, the loggers forget which levels are enabled.
        stack.callback(lambda: logging.root.setLevel(logging.root.level))
        stack.enter_context(mock.patch.dict(os.environ))
        for each in (logging.root, *logging.root.manager.loggerDict.values()):
            handlers = [*getattr(each, "handlers", ())]
            stack.enter_context(mock.patch.dict(vars(each), handlers=handlers))
        yield


async def sweep_after(template: Template) -> None:
    """Drop what processes of this run have left that are dead."""
    async with aclosing(template.administrator()) as admin:
        await sweep(admin)


async def sweep(admin: Administrator) -> int:
    """Drop what dead processes left, and templates unused for a day; return how many it found."""
    query = rf"""
        SELECT datname FROM pg_database AS d
        WHERE datname ~ :ours AND datconnlimit IN ({LIMIT}, {HALF_DROPPED})
          AND pg_has_role(datdba, 'USAGE')
          AND NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.datid = d.oid)
          AND NOT EXISTS (
            SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = :lock
              AND objid::bigint = substring(datname FROM '_(\d+)_')::bigint)
          AND NOT (datistemplate AND NOT datallowconn AND coalesce({LAST_USED} < {KEPT}, false))
    """
    dead = await admin.ask(query, ours=rf"^{PREFIX}_\d+_\w+$", lock=LOCK)
    for name in dead:
        # Another run was faster, which is as good.
        with suppress(sa.exc.DBAPIError):
            await admin.run(f"ALTER DATABASE {name} WITH IS_TEMPLATE false")
        with suppress(sa.exc.DBAPIError):
            await admin.run(f"DROP DATABASE {name}")
    return len(dead)
