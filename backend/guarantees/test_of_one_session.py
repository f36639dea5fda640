"""Promise 3: what belongs to one session of the server, and is no row, gets real commits."""

import pytest

from guarantees.factories import write_on_both_paths
from guarantees.project import Project
from guarantees.report import ran_again

pytestmark = pytest.mark.usefixtures("each_driver")

# Each body would end otherwise, if one savepoint on one connection were all there is.
BODIES = {
    "a setting outlasts its commit": """
    await text(a, "SET search_path TO pg_catalog")
    await a.commit()
    assert await a.scalar(sa.text("SHOW search_path")) == "pg_catalog"
""",
    "and leaks into the pool": """
    await text(a, "SELECT set_config('app.tenant', 'ada', false)")
    await a.commit()
    await a.close()
    async with SessionLocal() as c:
        assert await c.scalar(sa.text("SELECT current_setting('app.tenant', true)")) == "ada"
""",
    "also where a parameter says so": """
    await a.execute(sa.select(sa.func.set_config("app.tenant", "ada", sa.bindparam("x", False))))
    await a.commit()
    assert await a.scalar(sa.text("SELECT current_setting('app.tenant', true)")) == "ada"
""",
    "a role outlasts its commit": """
    await text(a, "SET ROLE pg_monitor")
    await a.commit()
    assert await a.scalar(sa.text("SELECT current_user::text")) == "pg_monitor"
    await text(a, "RESET ROLE")
    await a.commit()
""",
    "a table is dropped at the commit": """
    for _ in range(2):
        await text(a, "CREATE TEMP TABLE staged ON COMMIT DROP AS SELECT 1 AS one")
        await a.commit()
""",
    "and cannot be used after it": """
    await text(a, "CREATE TEMP TABLE staged ON COMMIT DROP AS SELECT 1 AS one")
    await a.commit()
    with pytest.raises(sa.exc.DBAPIError):
        await text(a, "SELECT * FROM staged")
""",
    "rows are deleted at the commit": """
    await text(a, "CREATE TEMP TABLE rows (one int) ON COMMIT DELETE ROWS")
    await a.commit()
    await text(a, "INSERT INTO rows VALUES (1)")
    await a.commit()
    assert await a.scalar(sa.text("SELECT count(*) FROM rows")) == 0
""",
    "a temporary table is another session's": """
    await text(a, "CREATE TEMP TABLE mine AS SELECT 1 AS one")
    with pytest.raises(sa.exc.DBAPIError):
        await text(b, "SELECT * FROM mine")
""",
    "a cursor ends with its transaction": """
    await text(a, "DECLARE mine CURSOR FOR SELECT 1")
    await a.commit()
    with pytest.raises(sa.exc.DBAPIError):
        await text(a, "FETCH mine")
""",
    "a cursor is another session's": """
    await text(a, "DECLARE mine CURSOR FOR SELECT 1")
    with pytest.raises(sa.exc.DBAPIError):
        await text(b, "FETCH mine")
""",
    "a prepared statement is another session's": """
    await text(a, "PREPARE mine AS SELECT 1")
    with pytest.raises(sa.exc.DBAPIError):
        await text(b, "EXECUTE mine")
""",
    "also when it is committed": """
    await text(a, "PREPARE mine AS SELECT 1")
    await a.commit()
""",
}
# What a transaction may do, and rollback shows.
SERVED = {
    "a setting of the transaction": """
    await text(a, "SET LOCAL work_mem = '1MB'")
    await text(a, "SELECT set_config('app.tenant', 'ada', true)")
    await a.commit()
    assert not await a.scalar(sa.text("SELECT current_setting('app.tenant', true)"))
""",
    "an update that says SET": """
    await text(a, "UPDATE users SET desk = 1")
    await a.commit()
    await text(b, "INSERT INTO users (email) VALUES ('x') ON CONFLICT (email) DO NOTHING")
    await b.commit()
""",
    "a function that updates": """
    await text(a, "SELECT tidy()")
    await a.commit()
""",
    "constraints and the transaction's mode": """
    await text(a, "SET CONSTRAINTS ALL DEFERRED")
    await a.commit()
""",
    "a function that makes a setting of the transaction": """
    await a.execute(sa.select(sa.func.use_for_now("1MB")))
    await a.commit()
    assert await a.scalar(sa.text("SHOW work_mem")) == "4MB"
""",
}
# The same by routines of the schema, which the text of a statement does not show.
ROUTINES = """
CREATE FUNCTION report() RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE n bigint; BEGIN
  CREATE TEMP TABLE staged ON COMMIT DROP AS SELECT id FROM users; SELECT count(*) INTO n
  FROM staged; RETURN n; END $$;
CREATE FUNCTION report_again() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT report(); END;
CREATE FUNCTION keep() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  CREATE TEMP TABLE IF NOT EXISTS kept AS SELECT 1 AS one; END $$;
CREATE FUNCTION use_memory(memory text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  EXECUTE 'SET work_mem = ' || quote_literal(memory); END $$;
CREATE FUNCTION use_little() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  -- as little as there is
  SET work_mem = '64kB'; END $$;
CREATE FUNCTION use_for_now(memory text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  PERFORM set_config('work_mem', memory, true); SET LOCAL jit = off; END $$;
CREATE FUNCTION use_once(memory text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  PERFORM set_config('app.use',
    coalesce(nullif(current_setting('app.use', true), ''), memory), false); END $$;
CREATE FUNCTION use_it() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  PERFORM Use_Once('1MB'); END $$;
CREATE FUNCTION tidy() RETURNS void LANGUAGE plpgsql
  AS 'BEGIN UPDATE users SET desk = NULL WHERE desk = 7; END'"""
TRIGGER = """;
CREATE FUNCTION on_role() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  SET work_mem = '1MB'; RETURN NEW; END $$;
CREATE TRIGGER on_role BEFORE UPDATE ON roles FOR EACH ROW EXECUTE FUNCTION on_role()
"""
BY_ROUTINE = {
    "a temporary table that ends with the transaction": """
    for _ in range(2):
        assert await a.scalar(sa.select(sa.func.report())) == 0
        await a.commit()
""",
    "by a function that calls another": """
    for _ in range(2):
        assert await a.scalar(sa.select(sa.func.report_again())) == 0
        await a.commit()
""",
    "a temporary table that stays": """
    await b.execute(sa.select(Role))  # so that it has a connection of its own
    await a.execute(sa.select(sa.func.keep()))
    await a.commit()
    with pytest.raises(sa.exc.DBAPIError):
        await b.execute(sa.select(sa.table("kept", sa.column("one"))))
""",
    "a setting of the session": """
    await a.execute(sa.select(sa.func.use_memory("1MB")))
    await a.commit()
    assert await a.scalar(sa.text("SHOW work_mem")) == "1MB"
""",
    "a setting of the session, written in the body": """
    await a.execute(sa.select(sa.func.use_little()))
    await a.commit()
    assert await a.scalar(sa.text("SHOW work_mem")) == "64kB"
""",
    "a setting that is made with what another one is": """
    await a.execute(sa.select(sa.func.use_once("1MB")))
    await a.commit()
    assert await a.scalar(sa.text("SELECT current_setting('app.use', true)")) == "1MB"
""",
    "a setting by a function whose name is written otherwise": """
    await a.execute(sa.select(sa.func.use_it()))
    await a.commit()
    assert await a.scalar(sa.text("SELECT current_setting('app.use', true)")) == "1MB"
""",
    "a construct of the application's own": """
    await b.execute(sa.select(Role))
    await a.execute(CreateTemporaryTable())
    await a.commit()
    with pytest.raises(sa.exc.DBAPIError):
        await b.execute(sa.select(sa.table("made", sa.column("one"))))
""",
    "a setting that a trigger makes of the session": """
    await a.execute(sa.update(Role).values(name=Role.name))
    await a.commit()
    assert await a.scalar(sa.text("SHOW work_mem")) == "1MB"
""",
}
SOURCE = """
from sqlalchemy.ext.compiler import compiles

class CreateTemporaryTable(sa.sql.expression.Executable, sa.sql.expression.ClauseElement):
    inherit_cache = False

@compiles(CreateTemporaryTable)
def create(*_, **__):
    return "CREATE TEMP TABLE made AS SELECT 1 AS one"

async def text(session, statement):
    await session.execute(sa.text(statement))

@pytest.fixture
async def sessions(db):
    async with SessionLocal() as a, SessionLocal() as b:
        yield a, b
"""


def write_each(project: Project, bodies: dict[str, str]) -> None:
    """Write a test of each body, with two sessions."""
    head = "\nasync def test_{}(sessions):\n    a, b = sessions"
    tests = (head.format(number) + body for number, body in enumerate(bodies.values()))
    write_on_both_paths(project, SOURCE + "".join(tests))


def test_what_a_savepoint_would_show_otherwise_gets_real_commits(project: Project) -> None:
    write_each(project, BODIES)
    project.write("tests/test_unit.py", UNITS)

    result = project.run()

    result.assert_outcomes(passed=2 * len(BODIES) + 30)
    assert set(ran_again(result)) == {f"test_{n}[savepoints]" for n in range(len(BODIES))}


# So that fewer than a third of the tests run again, and the report names each.
UNITS = """
import pytest

@pytest.mark.parametrize("number", range(30))
def test_it(number): pass
"""


@pytest.mark.parametrize("body", BY_ROUTINE.values(), ids=list(BY_ROUTINE))
def test_what_a_routine_does_gets_real_commits_too(project: Project, body: str) -> None:
    # So that there is nothing else that would be asked of the server at each commit.
    project.replace("app/models.py", ', deferrable=True, initially="DEFERRED"', "")
    project.extend_schema(ROUTINES + TRIGGER)
    write_each(project, {"": body})

    result = project.run()

    result.assert_outcomes(passed=2)
    assert set(ran_again(result)) == {"test_0[savepoints]"}


def test_what_a_savepoint_shows_does_not(project: Project) -> None:
    project.extend_schema(ROUTINES)
    write_each(project, SERVED)

    result = project.run()

    result.assert_outcomes(passed=2 * len(SERVED))
    assert ran_again(result) == {}
