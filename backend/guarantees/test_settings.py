"""Promise 3: the settings of a transaction are its session's own, and end with it."""

import pytest

from guarantees.factories import write_on_both_paths
from guarantees.project import Project
from guarantees.report import MADE_SETTINGS, ran_again

TENANTS = """
TENANT = sa.text("SELECT current_setting('app.tenant', true)")
WHO = sa.text("SELECT current_user::text")
OWN = sa.text("SELECT session_user::text")
BY_TEXT = [
    "SELECT set_config('app.tenant', '{0}', true)",
    "SET LOCAL app.tenant = '{0}'",
    "/* mine */ SET LOCAL app.tenant TO '{0}'",
    "-- mine\\nSET LOCAL app.tenant TO '{0}'",
    "SELECT pg_catalog.set_config('app.tenant', '{0}', true), 1",
]
BY_FUNCTION = ["SELECT become('{0}')", "SELECT 1 FROM Public.Become ('{0}')", "SELECT enter('{0}')"]

def sessions(statement):
    class Tenants(Session):
        pass

    @sa.event.listens_for(Tenants, "after_begin")
    def begin(session, transaction, connection):
        connection.execute(sa.text(statement.format(session.info["tenant"])))

    return lambda tenant: SessionLocal(sync_session_class=Tenants, info={"tenant": tenant})
"""
FUNCTIONS = """
CREATE FUNCTION become(it text) RETURNS void LANGUAGE plpgsql
  AS 'BEGIN PERFORM set_config(''app.tenant'', it, true); END';
CREATE FUNCTION enter(it text) RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT become(it); END;
CREATE FUNCTION greatest_id() RETURNS int LANGUAGE sql
  AS 'SELECT max(id)::int FROM users'
"""
TRIGGER = """;
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql
  AS 'BEGIN PERFORM set_config(''app.last'', NEW.email, true); RETURN NEW; END';
CREATE TRIGGER remember BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION remember()
"""


COUNTING = """;
CREATE FUNCTION count_them() RETURNS trigger LANGUAGE plpgsql
  AS 'BEGIN UPDATE users SET desk = 1; RETURN NULL; END';
CREATE TRIGGER count_them AFTER INSERT ON roles EXECUTE FUNCTION count_them()
"""


@pytest.fixture(autouse=True)
def schema(project: Project) -> None:
    """A function that makes a setting, and one that reads; autouse because every run has them."""
    project.extend_schema(FUNCTIONS)


def test_a_session_that_meets_the_settings_of_another_gets_real_commits(project: Project) -> None:
    write_on_both_paths(
        project,
        TENANTS
        + """
@pytest.mark.parametrize("statement", [*BY_TEXT, *BY_FUNCTION])
async def test_it(client, db, statement):
    session_of = sessions(statement)
    async with session_of("ada") as first, session_of("grace") as second:
        assert await first.scalar(TENANT) == "ada"
        assert await second.scalar(TENANT) == "grace"
        second.add(User(email="of grace"))
        await second.commit()
        assert (await client.post("/users/joan")).status_code == 200
    assert await emails(db) == ["joan", "of grace"]
    assert not await db.scalar(TENANT)
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2 * 8)
    assert set(ran_again(result).values()) == {MADE_SETTINGS}
    assert len(ran_again(result)) == 8


def test_a_setting_that_is_reset_is_one_too(project: Project) -> None:
    project.app_engine(
        "@sa.event.listens_for(engine.sync_engine, 'connect')\n"
        "def set_it(new, _): new.cursor().execute(\"SET work_mem = '1MB'\")"
    )
    write_on_both_paths(
        project,
        """
async def test_it(db):
    async with SessionLocal() as other:
        await db.execute(sa.text("RESET work_mem"))
        await other.execute(sa.text("SELECT 1"))
        assert await db.scalar(sa.text("SHOW work_mem")) == "4MB"
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert list(ran_again(result)) == ["test_it[savepoints]"]


def test_the_set_of_an_update_makes_no_setting(project: Project) -> None:
    write_on_both_paths(
        project,
        """
async def test_it(db):
    await db.execute(sa.text("UPDATE users\\nSET desk = 1"))
    await db.commit()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert ran_again(result) == {}


def test_nor_does_an_update_where_a_trigger_updates_too(project: Project) -> None:
    project.write("schema.sql", FUNCTIONS + COUNTING)
    write_on_both_paths(
        project,
        """
async def test_it(client, db):
    await client.post("/users/ada")
    await db.execute(sa.update(User).values(desk=2))
    await db.commit()
    await db.execute(sa.text("UPDATE users SET desk = 3"))
    await db.commit()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert ran_again(result) == {}


def test_a_function_that_only_reads_makes_no_settings(project: Project) -> None:
    write_on_both_paths(
        project,
        """
async def test_it(db):
    async with SessionLocal() as other:
        for session in (db, other, db):
            assert await session.scalar(sa.text("SELECT greatest_id()")) is None
            assert await session.scalar(sa.text("SELECT 1 AS offset_of_become"))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert ran_again(result) == {}


def test_each_of_several_open_sessions_sees_its_own(project: Project) -> None:
    write_on_both_paths(
        project,
        TENANTS
        + """
@pytest.mark.parametrize("statement", [*BY_TEXT, *BY_FUNCTION])
async def test_it(db, statement):
    session_of = sessions(statement)
    async with session_of("ada") as first, session_of("grace") as second:
        for _ in range(2):
            assert await first.scalar(TENANT) == "ada"
            assert not await db.scalar(TENANT)
            assert await second.scalar(TENANT) == "grace"
        await first.commit()
        await second.rollback()
        assert await second.scalar(TENANT) == "grace"
        assert await first.scalar(TENANT) == "ada"
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2 * 8)


def test_they_end_with_the_transaction(project: Project) -> None:
    write_on_both_paths(
        project,
        TENANTS
        + """
SETS = [*(each.format("ada") for each in (*BY_TEXT, *BY_FUNCTION)), "SET LOCAL ROLE pg_monitor",
        "SET LOCAL search_path = pg_catalog", "SET LOCAL statement_timeout = 1234"]
END = ["commit", "rollback", "error", "nothing"]

async def state(session):
    names = "search_path", "statement_timeout", "work_mem"
    return [await session.scalar(sa.text(f"SHOW {name}")) for name in names] + [
        await session.scalar(TENANT) or "", await session.scalar(WHO)]

@pytest.mark.parametrize("end", END)
@pytest.mark.parametrize("number", range(len(SETS)))
async def test_it(db, end, number):
    before = await state(db)
    await db.rollback()
    async with SessionLocal() as session:
        await session.execute(sa.text(SETS[number]))
        assert await state(session) != before
        if end in ("commit", "rollback"):
            await getattr(session, end)()
            assert await state(session) == before
        elif end == "error":
            with pytest.raises(sa.exc.DBAPIError):
                await session.execute(sa.text("SELECT 1 / 0"))
            await session.rollback()
            assert await state(session) == before
    assert await state(db) == before
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2 * 11 * 4)
    assert ran_again(result) == {}


def test_they_are_forgotten_with_the_transaction(project: Project) -> None:
    write_on_both_paths(
        project,
        TENANTS
        + """
@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_it(db, engine, end):
    async with engine.connect() as connection:
        await connection.execute(sa.text("SET LOCAL work_mem = 64"))
        await getattr(connection, end)()
        await connection.scalar(WHO)
        await db.scalar(WHO)
        await connection.scalar(WHO)
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert ran_again(result) == {}


@pytest.mark.parametrize("name", ["statement_timeout"])
def test_what_a_new_connection_was_set_to_outlasts_the_transaction(
    project: Project, name: str
) -> None:
    project.app_engine(
        """
@sa.event.listens_for(engine.sync_engine, "connect")
def prepare(connection, record):
    cursor = connection.cursor()
    cursor.execute("SET application_name = 'of the app'")
    cursor.execute("SELECT set_config('app.region', 'north', false)")
    cursor.execute("SET statement_timeout = 54321")
    connection.commit()
"""
    )
    write_on_both_paths(
        project,
        f"""
OWN = {{"statement_timeout": "54321ms", "app.region": "north"}}["{name}"]

async def state(session):
    names = "application_name", "{name}"
    return [await session.scalar(sa.text(f"SELECT current_setting('{{each}}')")) for each in names]

@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, db, time):
    expected = ["of the app", OWN]
    assert await state(db) == expected
    await db.execute(sa.text("SET LOCAL {name} = '999'"))
    for end in db.commit, db.rollback:
        await end()
        assert await state(db) == expected
    with pytest.raises(sa.exc.DBAPIError):
        await db.execute(sa.text("SELECT 1 / 0"))
    await db.rollback()
    assert await state(db) == expected
    await db.execute(sa.text("SET {name} = '777'"))
    await db.commit()
    await client.get("/users/count")
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)


def test_a_transaction_may_be_made_read_only_or_serializable(project: Project) -> None:
    write_on_both_paths(
        project,
        """
@pytest.mark.parametrize("mode", ["READ ONLY", "READ WRITE", "ISOLATION LEVEL SERIALIZABLE",
                                  "ISOLATION LEVEL REPEATABLE READ, READ ONLY"])
async def test_for_one_transaction(client, db, mode):
    await db.execute(sa.text(f"SET TRANSACTION {mode}"))
    await db.scalar(sa.select(User.id))
    await db.commit()
    assert (await client.post("/users/ada")).status_code == 200
    db.add(User(email="grace"))
    await db.commit()
    assert await emails(db) == ["ada", "grace"]

async def test_for_a_session(client, db):
    await db.connection(execution_options={"isolation_level": "SERIALIZABLE"})
    assert await db.scalar(sa.text("SHOW transaction_isolation")) == "serializable"
    db.add(User(email="grace"))
    await db.commit()
    assert await emails(db) == ["grace"]

async def test_read_only_refuses_a_write(db):
    await db.execute(sa.text("SET TRANSACTION READ ONLY"))
    with pytest.raises(sa.exc.DBAPIError, match="read-only transaction"):
        await db.execute(sa.insert(User).values(email="ada"))
    await db.rollback()
    db.add(User(email="grace"))
    await db.commit()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=12)


def test_a_read_only_session_cannot_write(project: Project) -> None:
    write_on_both_paths(
        project,
        """
async def test_it(db):
    await db.connection(execution_options={"postgresql_readonly": True})
    db.add(User(email="ada"))
    with pytest.raises(sa.exc.DBAPIError, match="read-only"):
        await db.commit()

async def test_one_that_is_not_can(db):
    await db.connection(execution_options={"postgresql_readonly": False})
    db.add(User(email="ada"))
    await db.commit()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert list(ran_again(result)) == ["test_it[savepoints]"]


def test_a_setting_that_a_trigger_makes_ends_with_the_transaction(project: Project) -> None:
    project.write("schema.sql", FUNCTIONS.rstrip() + TRIGGER)
    write_on_both_paths(
        project,
        """
async def test_it(client, db):
    await client.post("/users/ada")
    async with SessionLocal() as other:
        last = sa.func.current_setting("app.last", True)
        assert not await other.scalar(sa.select(last))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


@pytest.mark.usefixtures("each_driver")
def test_whether_a_setting_is_local_may_be_bound(project: Project) -> None:
    write_on_both_paths(
        project,
        """
@pytest.mark.parametrize("is_local", [True, False])
async def test_it(db, is_local):
    await db.execute(sa.select(sa.func.set_config("app.tenant", "ada", is_local)))
    await db.commit()

async def test_text(db):
    setting = sa.text("SELECT set_config('app.tenant', CAST(:it AS text), :is_local)")
    await db.execute(setting, {"it": "ada", "is_local": True})
    await db.commit()
    assert await db.scalar(sa.text("SELECT current_setting('app.tenant')")) == ""
""",
    )

    result = project.run()

    result.assert_outcomes(passed=6)
    assert list(ran_again(result)) == ["test_it[savepoints-False]"]
