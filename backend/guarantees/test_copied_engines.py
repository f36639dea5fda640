"""Promise 3: by rollback, too, an engine has the options and listeners of production."""

import pytest

from guarantees.factories import add_second_engine, seed_nothing, write_on_both_paths, write_tests
from guarantees.project import Project
from guarantees.report import causes, counts, ran_again


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
        "engine = engine.execution_options(postgresql_readonly=True)"
    ),
    "the application's engine has the option isolation_level": (
        "engine = engine.execution_options(isolation_level='READ COMMITTED')"
    ),
    "the application's engine has a listener of checkout": (
        "sa.event.listen(engine.sync_engine, 'checkout', lambda *_: None)"
    ),
    "the application's engine has a listener of checkin": (
        "sa.event.listen(sa.Engine, 'checkin', lambda *_: None)"  # of all engines
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
    seed_nothing(project)
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


@pytest.mark.parametrize(
    ("options", "lines", "what"),
    [
        ("json_deserializer=len", "", "the JSON functions"),
        ("", 'sa.event.listen(second.sync_engine, "connect", print)', "the listeners of connect"),
    ],
)
def test_a_second_engine_that_is_otherwise_means_real_commits(
    project: Project, options: str, lines: str, what: str
) -> None:
    add_second_engine(project, options, lines)
    write_tests(project, "async def test_it(client): await client.post('/users/ada')")

    result = project.run()

    result.assert_outcomes(passed=1)
    (cause,) = causes(result, "real commits for all")
    assert cause.startswith(f"the application's connections have {what} ")


def test_by_rollback_the_drivers_options_are_those_of_the_first_engine(project: Project) -> None:
    add_second_engine(project, "connect_args={'command_timeout': 0.2}")
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
    seed_nothing(project)
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
def test_its_json_functions_are_called_in_tests_too(
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
    zone = "connect_args={{'server_settings': {{'timezone': '{}'}}}}".format
    add_second_engine(project, zone("Europe/Berlin"), first=zone("Asia/Tokyo"))
    write_tests(
        project,
        """
from app.db import Second, SessionLocal

async def test_it(override_get_db):
    for factory, zone in (SessionLocal, "Asia/Tokyo"), (Second, "Europe/Berlin"):
        async with factory() as session:
            assert await session.scalar(sa.text("SHOW timezone")) == zone
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)
    (cause,) = causes(result, "real commits for all")
    assert cause.startswith("the application's connections have TimeZone ")


def test_connections_may_take_a_role_that_may_not_set_sequences(project: Project) -> None:
    project.extend_schema(
        "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO pg_monitor;\n"
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO pg_monitor"
    )
    project.app_engine(
        "@sa.event.listens_for(engine.sync_engine, 'connect')\n"
        "def act(new, _): new.cursor().execute('SET ROLE pg_monitor')"
    )
    write_on_both_paths(
        project,
        """
@pytest.mark.parametrize("time", [1, 2])
async def test_it(db, time):
    db.add(user := User(email="ada"))
    await db.commit()
    assert (user.id, await db.scalar(sa.text("SELECT current_user"))) == (1, "pg_monitor")
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert causes(result) == {}
    assert ran_again(result) == {}


def test_psycopg_may_prepare_each_statement_at_once(project: Project) -> None:
    project.use_driver("psycopg")
    project.app_engine("", "connect_args={'prepare_threshold': 0}")
    write_on_both_paths(
        project,
        """
@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, db, time):
    await client.post("/users/ada")
    db.add(User(email="grace"))
    await db.commit()
    assert await emails(db) == ["ada", "grace"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert causes(result) == {}
    assert ran_again(result) == {}
