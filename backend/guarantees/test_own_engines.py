"""Promise 4: real commits are made by the application's own engines, as they are in production."""

import pytest
import sqlalchemy

from guarantees.factories import write_on_both_paths, write_tests
from guarantees.project import Project
from guarantees.report import causes, counts, ran_again

# An isolation level, however it was set.
LEVELS = {
    "of the engine": "isolation_level='REPEATABLE READ'",
    "of its options": "execution_options={'isolation_level': 'REPEATABLE READ'}",
    "of the server's settings": "connect_args={'server_settings':"
    " {'default_transaction_isolation': 'repeatable read'}}",
    "of the database": "",
}
OF_THE_DATABASE = """
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = %L',
  current_database(), 'repeatable read'); END $$
"""


@pytest.mark.parametrize("level", LEVELS)
def test_the_isolation_level_is_that_of_production(project: Project, level: str) -> None:
    if "engine" not in level and "options" not in level and sqlalchemy.__version__ < "2.0.38":
        pytest.skip("before 2.0.38 transactions of asyncpg were READ COMMITTED in any case")
    project.app_engine("", LEVELS[level])
    if level == "of the database":
        project.extend_schema(OF_THE_DATABASE)
    write_on_both_paths(
        project,
        """
async def test_it(client, db):
    assert await db.scalar(sa.text("SHOW transaction_isolation")) == "repeatable read"
    before = await db.scalar(sa.select(sa.func.count()).select_from(User))
    await client.post("/users/ada")
    assert await db.scalar(sa.select(sa.func.count()).select_from(User)) == before == 0
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert counts(result)[0] == 2


def test_an_engine_in_autocommit_gets_real_commits(project: Project) -> None:
    project.app_engine("", "isolation_level='AUTOCOMMIT'")
    write_tests(
        project,
        """
async def test_it(client):
    await client.post("/forgotten/ada")
    assert (await client.get("/users/count")).json() == 1
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)
    assert list(causes(result, "real commits for all")) == [
        "the application's connections have autocommit 'True'"
    ]


def test_its_settings_and_listeners_hold_on_both_paths(project: Project) -> None:
    project.app_engine(
        """
heard = []

@sa.event.listens_for(engine.sync_engine, "connect")
def prepare(connection, record):
    connection.cursor().execute("SET work_mem = '1MB'")

@sa.event.listens_for(engine.sync_engine, "before_cursor_execute")
def hear(*arguments):
    heard.append(arguments)
""",
        "connect_args={'server_settings': {'application_name': 'ours', 'jit': 'off'}}",
    )
    write_on_both_paths(
        project,
        """
from app.db import heard

@pytest.mark.parametrize("time", [1, 2])
async def test_it(db, time, transactions_are):
    for name, value in ("application_name", "ours"), ("jit", "off"), ("work_mem", "1MB"):
        assert await db.scalar(sa.text(f"SHOW {name}")) == value
    await db.execute(sa.text("SET work_mem = '2MB'"))
    await db.commit()
    assert any("SHOW work_mem" in arguments for arguments in heard)
    heard.clear()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert causes(result, "real commits for all") == {}


def test_its_listeners_hear_what_they_hear_in_production(project: Project) -> None:
    project.app_engine(
        """
from functools import partial

heard = []

def hear(name, *_, **__):
    heard.append(name)

for name in "begin", "commit", "rollback", "handle_error":
    sa.event.listen(engine.sync_engine, name, partial(hear, name))
"""
    )
    write_on_both_paths(
        project,
        """
from app.db import SessionLocal, engine as apps_engine, heard

async def test_it(override_get_db, transactions_are):
    heard.clear()
    async with SessionLocal() as session:
        await session.execute(sa.text("SELECT 1"))
        await session.commit()
        with pytest.raises(sa.exc.DBAPIError):
            await session.execute(sa.text("SELECT 1 / 0"))
    assert heard == ["begin", "commit", "begin", "handle_error", "rollback"]

async def test_one_that_is_added_by_a_test(override_get_db):
    counted = []
    count = lambda *arguments: counted.append(arguments)
    sa.event.listen(apps_engine.sync_engine, "before_cursor_execute", count)
    async with SessionLocal() as session:
        await session.execute(sa.text("SELECT 1"))
    sa.event.remove(apps_engine.sync_engine, "before_cursor_execute", count)
    assert len(counted) == 1
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert counts(result)[0] == 2
    assert ran_again(result) == {}


# What an engine does with each connection, unseen by the one that all share.
FLAWS = {
    "the application's engine has the option postgresql_readonly": (
        "engine = engine.execution_options(postgresql_readonly=True)\n"
        "SessionLocal = async_sessionmaker(engine, expire_on_commit=False)"
    ),
    "the application's engine has the option isolation_level": (
        "engine = engine.execution_options(isolation_level='READ COMMITTED')\n"
        "SessionLocal = async_sessionmaker(engine, expire_on_commit=False)"
    ),
    "the application's engine has a listener of checkout": (
        "sa.event.listen(engine.sync_engine, 'checkout', lambda *_: None)"
    ),
    "the application's engine has a listener of do_execute": (
        "@sa.event.listens_for(engine.sync_engine, 'do_execute')\n"
        "def run(cursor, statement, parameters, context):\n"
        "    cursor.execute(statement, parameters)\n"
        "    return True"
    ),
    "the application's listeners of connect create something": (
        "@sa.event.listens_for(engine.sync_engine, 'connect')\n"
        "def create(new, _):\n"
        "    new.cursor().execute('CREATE EXTENSION IF NOT EXISTS citext')\n"
        "    new.commit()"
    ),
}


@pytest.mark.parametrize("flaw", FLAWS)
@pytest.mark.usefixtures("each_driver")
def test_what_it_does_with_each_connection_means_real_commits(project: Project, flaw: str) -> None:
    project.app_engine(FLAWS[flaw])
    project.replace("tests/conftest.py", "fc.seed_once(engine, setup_roles)", "asyncio.sleep(0)")
    project.replace("tests/conftest.py", "import sys\n", "import asyncio\nimport sys\n")
    write_tests(
        project,
        """
@pytest.mark.parametrize("time", [1, 2])
async def test_it(db, time):
    assert (await db.scalars(sa.select(User.email))).all() == []
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert list(causes(result, "real commits for all")) == [flaw]


SECOND = """
second = create_async_engine(engine.url, json_deserializer=len)
Second = async_sessionmaker(second)
"""
LISTENS = """
second = create_async_engine(engine.url)
sa.event.listen(second.sync_engine, "connect", print)
Second = async_sessionmaker(second)
"""


@pytest.mark.parametrize(
    ("lines", "what"), [(SECOND, "the JSON functions"), (LISTENS, "the listeners of connect")]
)
def test_a_second_engine_that_is_otherwise_means_real_commits(
    project: Project, lines: str, what: str
) -> None:
    project.app_engine(lines)
    project.replace("tests/conftest.py", "from app.db import", "from app.db import Second,")
    project.replace("tests/conftest.py", "[SessionLocal]", "[SessionLocal, Second]")
    write_tests(project, "async def test_it(client): await client.post('/users/ada')")

    result = project.run()

    result.assert_outcomes(passed=1)
    (cause,) = causes(result, "real commits for all")
    assert cause.startswith(f"the application's connections have {what} ")


def test_by_rollback_the_drivers_options_are_those_of_the_first_engine(project: Project) -> None:
    project.app_engine(
        "second = create_async_engine(engine.url, connect_args={'command_timeout': 0.2})\n"
        "Second = async_sessionmaker(second)"
    )
    project.replace("tests/conftest.py", "from app.db import", "from app.db import Second,")
    project.replace("tests/conftest.py", "[SessionLocal]", "[SessionLocal, Second]")
    write_on_both_paths(
        project,
        """
from contextlib import nullcontext as does_not_raise
from app.db import Second

async def test_it(override_get_db, transactions_are):
    fails = does_not_raise() if transactions_are == "savepoints" else pytest.raises(TimeoutError)
    async with Second() as session:
        with fails:
            await session.execute(sa.text("SELECT pg_sleep(0.5)"))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert ran_again(result) == {}


def test_an_engine_that_is_derived_and_kept_works_in_later_tests(project: Project) -> None:
    write_on_both_paths(
        project,
        """
from functools import cache
from app.db import engine as apps_engine

@cache
def derived(**options):
    return apps_engine.execution_options(**options)

@pytest.mark.parametrize("options", [{"isolation_level": "AUTOCOMMIT"}, {"logging_token": "it"}])
@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, db, options, time):
    async with derived(**options).connect() as connection:
        assert await connection.scalar(sa.text("SELECT 1")) == 1
    await client.post("/users/ada")
    assert await emails(db) == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=8)


def test_the_figures_of_its_pool_are_those_of_production(project: Project) -> None:
    project.app_engine("", "pool_size=3")
    write_on_both_paths(
        project,
        """
from app.db import engine as apps_engine

async def test_it(db):
    await db.scalar(sa.select(User.id))
    assert (apps_engine.pool.size(), apps_engine.pool.checkedout()) == (3, 1)
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert list(ran_again(result)) == ["test_it[savepoints]"]


def test_its_listeners_may_need_what_only_a_request_has(project: Project) -> None:
    project.app_engine(
        """
from contextvars import ContextVar

tenant = ContextVar("tenant")

@sa.event.listens_for(engine.sync_engine, "begin")
def choose(connection):
    connection.exec_driver_sql(f"SET LOCAL app.tenant = '{tenant.get()}'")
"""
    )
    project.replace("tests/conftest.py", "fc.seed_once(engine, setup_roles)", "asyncio.sleep(0)")
    project.replace("tests/conftest.py", "import sys\n", "import asyncio\nimport sys\n")
    write_tests(
        project,
        """
from app.db import tenant

@pytest.mark.parametrize("who", ["ada", "grace"])
async def test_it(db, who):
    tenant.set(who)
    assert await db.scalar(sa.text("SELECT current_setting('app.tenant')")) == who
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert counts(result) == (0, 0, 0)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("lines", ["", "engine = engine.execution_options(logging_token='it')"])
def test_its_json_functions_are_those_of_its_tests(
    project: Project, driver: str, lines: str
) -> None:
    project.use_driver(driver)
    functions = "json_serializer=lambda it: '[5]', json_deserializer=lambda text: len(text)"
    project.app_engine(lines, functions)
    write_on_both_paths(
        project,
        """
from sqlalchemy.dialects.postgresql import JSONB

async def test_it(db, db_transaction):
    for each in db, db_transaction:
        assert await each.scalar(sa.select(sa.cast({"a": 1}, JSONB))) == len("[5]")
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert ran_again(result) == {}


def test_a_time_limit_of_the_driver_is_kept(project: Project) -> None:
    project.app_engine("", "connect_args={'command_timeout': 0.2}")
    write_on_both_paths(
        project,
        """
@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, db, time):
    await client.post("/users/ada")
    with pytest.raises(TimeoutError):
        await db.execute(sa.text("SELECT pg_sleep(5)"))
    await db.rollback()
    assert await emails(db) == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert ran_again(result) == {}


def test_a_time_limit_of_its_transactions_means_real_commits(project: Project) -> None:
    limit = "connect_args={'server_settings': {'transaction_timeout': '5s'}}"
    project.app_engine("", limit)
    write_tests(project, "async def test_it(client): await client.post('/users/ada')")

    result = project.run()

    result.assert_outcomes(passed=1)
    cause = "the application's connections have transaction_timeout '5000'"
    assert causes(result, "real commits for all") == {cause: 1}


def test_two_engines_with_other_settings_mean_real_commits(project: Project) -> None:
    address = '"postgresql+asyncpg://nobody@127.0.0.1:1/production"'
    project.app_engine(
        f"""
berlin = create_async_engine({address}, connect_args={{"server_settings": {{
    "timezone": "Europe/Berlin"}}}})
InBerlin = async_sessionmaker(berlin)
""",
        "connect_args={'server_settings': {'timezone': 'Asia/Tokyo'}}",
    )
    project.replace("tests/conftest.py", "from app.db import", "from app.db import InBerlin,")
    project.replace("tests/conftest.py", "[SessionLocal]", "[SessionLocal, InBerlin]")
    write_tests(
        project,
        """
from app.db import InBerlin, SessionLocal

async def test_it(override_get_db):
    for factory, zone in (SessionLocal, "Asia/Tokyo"), (InBerlin, "Europe/Berlin"):
        async with factory() as session:
            assert await session.scalar(sa.text("SHOW timezone")) == zone
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)
    (cause,) = causes(result, "real commits for all")
    assert cause.startswith("the application's connections have TimeZone ")


def test_its_pool_has_its_limits(project: Project) -> None:
    project.app_engine("", "pool_size=1, max_overflow=1, pool_timeout=0.2")
    write_tests(
        project,
        """
from app.db import SessionLocal

@pytest.mark.fresh_database
@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, db, db_transaction, time):
    await db_transaction.execute(sa.text("SELECT 1"))
    held = [SessionLocal() for _ in range(3)]
    with pytest.raises(sa.exc.TimeoutError):
        for each in held:
            await each.execute(sa.text("SELECT 1"))
    for each in held:
        await each.close()
    assert (await client.post("/users/ada")).status_code == 200
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_place_in_the_pool_that_nobody_gave_back_is_free_for_the_next_test(
    project: Project,
) -> None:
    project.app_engine("", "pool_size=1, max_overflow=0, pool_timeout=0.2")
    write_tests(
        project,
        """
from app.db import SessionLocal

kept = []

@pytest.mark.fresh_database
@pytest.mark.parametrize("time", range(3))
async def test_it(client, time):
    assert (await client.post("/users/ada")).status_code == 200
    kept.append(SessionLocal())
    await kept[-1].execute(sa.text("SELECT 1"))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=3)
    assert causes(result, "connection ended after the test") == {
        "a connection that was never given back": 3
    }


TWO = """
from sqlalchemy.orm import Session

replica = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/replica", pool_size=1)

class Routing(Session):
    def get_bind(self, *_, clause=None, **__):
        reads = getattr(clause, "is_select", False) and not self._flushing
        return (replica if reads else engine).sync_engine

RoutingSession = async_sessionmaker(sync_session_class=Routing, binds={Session: engine})
"""


def test_two_engines_are_two(project: Project) -> None:
    project.app_engine(TWO)
    project.replace("tests/conftest.py", "sessions=[SessionLocal]", "sessions=[RoutingSession]")
    project.replace("tests/conftest.py", "import Base, SessionLocal", "import *")
    project.replace("tests/conftest.py", "    return SessionLocal\n", "    return RoutingSession\n")
    project.replace(
        "tests/conftest.py", "metadata=Base.metadata", "metadata=Base.metadata, engines=[replica]"
    )
    write_on_both_paths(
        project,
        """
async def test_a_replica_does_not_see_what_is_not_committed(get_db_session):
    async with get_db_session() as session:
        session.add(User(email="ada"))
        await session.flush()
        assert (await session.scalars(sa.select(User.email))).all() == []

async def test_it_sees_what_is(client, get_db_session):
    await client.post("/users/ada")
    async with get_db_session() as session:
        assert (await session.scalars(sa.select(User.email))).all() == ["ada"]
        assert len((await session.scalars(sa.select(Role))).all()) == 2
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert list(ran_again(result)) == [
        "test_a_replica_does_not_see_what_is_not_committed[savepoints]"
    ]


LATE = """
from functools import cache
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from app.db import engine as apps_engine

@cache
def late_engine():
    return create_async_engine(apps_engine.url{options})

@app.get("/late")
async def late() -> int:
    async with late_engine().connect() as connection:
        return await connection.scalar(sa.text("SELECT count(*) FROM users"))

@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, time):
    await client.post("/users/ada")
    assert (await client.get("/late")).json() == 1
"""


@pytest.mark.parametrize("options", ["", ", pool_pre_ping=True", ", pool_recycle=0"])
def test_an_engine_that_is_made_by_the_first_request_is_the_applications(
    project: Project, options: str
) -> None:
    write_on_both_paths(project, LATE.format(options=options))

    result = project.run()

    result.assert_outcomes(passed=4)
    assert len(ran_again(result)) == 2


def test_an_engine_that_is_born_in_the_lifespan_is_the_applications(project: Project) -> None:
    write_on_both_paths(
        project,
        """
from contextlib import asynccontextmanager
from fastapi import Request
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from app.db import engine as apps_engine

@asynccontextmanager
async def lifespan(_):
    own = create_async_engine(apps_engine.url)
    async with own.begin() as connection:
        await connection.execute(sa.text("INSERT INTO users (email) VALUES ('of the lifespan')"))
    yield {"sessions": async_sessionmaker(own)}
    await own.dispose()

app.router.lifespan_context = lifespan

@app.get("/born")
async def born(request: Request) -> int:
    async with request.state.sessions() as session:
        return await session.scalar(sa.text("SELECT count(*) FROM users"))

@pytest.mark.parametrize("time", [1, 2])
def test_it(override_get_db, time):
    from starlette.testclient import TestClient
    with TestClient(app) as client:
        assert client.get("/born").json() == 1
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)


@pytest.mark.parametrize(
    "options", ["", "pool_pre_ping=True", "pool_recycle=0", "poolclass=NullPool"]
)
def test_sessions_go_on_where_the_app_disposes_of_its_pool(project: Project, options: str) -> None:
    project.app_engine("", options)
    project.write("app/db.py", "from sqlalchemy.pool import NullPool\n" + project.read("app/db.py"))
    write_on_both_paths(
        project,
        """
from app.db import engine as apps_engine

@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, db, time):
    db.add(User(email="ada"))
    await db.commit()
    await apps_engine.dispose()
    assert (await client.post("/users/grace")).status_code == 200
    assert await emails(db) == ["ada", "grace"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert ran_again(result) == {}


CREATORS = {
    "asynchronous": (
        "import asyncpg\n"
        "async def connect(): return await asyncpg.connect('postgresql://127.0.0.1:1/cloud')\n"
        "engine = create_async_engine('postgresql+asyncpg://', async_creator=connect)\n"
        "SessionLocal = async_sessionmaker(engine, expire_on_commit=False)"
    ),
    "an argument": (
        "import asyncpg\n"
        "async def connect(**_): return await asyncpg.connect('postgresql://127.0.0.1:1/cloud')\n"
        "engine = create_async_engine('postgresql+asyncpg://nobody@127.0.0.1:1/production',"
        " connect_args={'async_creator_fn': connect})\n"
        "SessionLocal = async_sessionmaker(engine, expire_on_commit=False)"
    ),
    "listener": (
        "@sa.event.listens_for(engine.sync_engine, 'do_connect')\n"
        "def token(dialect, record, args, to): raise RuntimeError('no token')"
    ),
}


@pytest.mark.parametrize("lines", CREATORS.values(), ids=list(CREATORS))
def test_what_connects_by_itself_does_not_get_to_answer(project: Project, lines: str) -> None:
    project.app_engine(lines)
    if "SessionLocal" in lines:
        made = "SessionLocal = async_sessionmaker(engine, expire_on_commit=False)\n\n\nclass"
        project.replace("app/db.py", made, "class")
    write_on_both_paths(
        project,
        """
@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, db, time):
    assert (await client.post("/users/ada")).status_code == 200
    assert await emails(db) == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert ran_again(result) == {}
