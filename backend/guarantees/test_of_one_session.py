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
}
SOURCE = """
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


def test_what_a_savepoint_shows_does_not(project: Project) -> None:
    project.extend_schema(
        "CREATE FUNCTION tidy() RETURNS void LANGUAGE plpgsql"
        " AS 'BEGIN UPDATE users SET desk = NULL WHERE desk = 7; END'"
    )
    write_each(project, SERVED)

    result = project.run()

    result.assert_outcomes(passed=2 * len(SERVED))
    assert ran_again(result) == {}
