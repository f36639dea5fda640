"""Promise 8: on the embedded server the application's role is none of a superuser."""

import pytest

from guarantees.factories import write_on_both_paths, write_tests
from guarantees.project import Project
from guarantees.report import causes, counts

SECURED = """
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE users FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON users USING (email = current_setting('app.me', true))
"""
TENANTS = """
async def write(db, me, email):
    await db.execute(sa.text("SELECT set_config('app.me', :me, true)"), {"me": me})
    await db.execute(sa.text("INSERT INTO users (email) VALUES (:email)"), {"email": email})
    await db.commit()

async def test_1_each_sees_its_own(db):
    await write(db, "ada", "ada")
    await write(db, "joan", "joan")
    await db.execute(sa.text("SELECT set_config('app.me', 'ada', true)"))
    assert (await db.scalars(sa.text("SELECT email FROM users"))).all() == ["ada"]

async def test_2_and_writes_its_own(db):
    with pytest.raises(sa.exc.DBAPIError):
        await write(db, "ada", "joan")

async def test_3_the_rows_of_each_are_gone(db):
    for me in "ada", "joan":
        await write(db, me, me)
"""


@pytest.mark.usefixtures("folder")
def test_policies_are_in_force_and_what_they_hide_is_deleted(project: Project) -> None:
    project.extend_schema(SECURED)
    write_on_both_paths(project, TENANTS)

    result = project.run()

    result.assert_outcomes(passed=6)
    assert counts(result)[1] == 0
    assert causes(result, "row-level security not in force") == {}


def test_a_given_role_that_is_above_policies_is_told(project: Project) -> None:
    project.extend_schema(SECURED)
    write_tests(project, "async def test_it(db): pass\n")

    result = project.run()

    result.assert_outcomes(passed=1)
    told = causes(result, "row-level security not in force")
    assert told == {"the role postgres is above it: name another for the tests": 1}


@pytest.mark.usefixtures("folder")
def test_a_test_may_take_the_role_that_the_schema_has_made(project: Project) -> None:
    project.extend_schema(
        "CREATE ROLE reader;\n"
        "GRANT SELECT ON users TO reader;\n"
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY;\n"
        "CREATE POLICY own ON users TO reader USING (email = 'ada')"
    )
    write_on_both_paths(
        project,
        """
async def test_it(client, db):
    for name in "ada", "joan":
        await client.post(f"/users/{name}")
    await db.execute(sa.text("SET LOCAL ROLE reader"))
    assert (await db.scalars(sa.text("SELECT email FROM users"))).all() == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


@pytest.mark.usefixtures("folder")
def test_the_server_has_connections_for_a_worker_on_each_processor(project: Project) -> None:
    write_tests(
        project,
        """
import os

async def test_it(db):
    assert int(await db.scalar(sa.text("SHOW max_connections"))) >= 100 + 8 * os.cpu_count()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)


@pytest.mark.usefixtures("folder")
def test_each_extension_of_the_wheel_can_be_created_by_the_schema(project: Project) -> None:
    project.extend_schema(
        """
CREATE EXTENSION vector;
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION earthdistance CASCADE;
CREATE EXTENSION pg_stat_statements;
CREATE EXTENSION citext;
CREATE TABLE items (id int, at vector(3))
"""
    )
    write_on_both_paths(
        project,
        """
@pytest.mark.parametrize("time", [1, 2])
async def test_it(db, time):
    await db.execute(sa.text("INSERT INTO items VALUES (1, '[1,2,3]')"))
    await db.commit()
    assert await db.scalar(sa.text("SELECT at <-> '[1,2,4]' FROM items")) == 1
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert counts(result)[1] == 0


@pytest.mark.usefixtures("folder")
def test_the_time_zone_is_utc_whatever_the_machines(project: Project) -> None:
    project.environment["TZ"] = "Asia/Kolkata"
    write_on_both_paths(
        project,
        """
async def test_it(db):
    assert await db.scalar(sa.text("SHOW timezone")) == "UTC"
    assert await db.scalar(sa.text("SELECT localtimestamp = now() AT TIME ZONE 'UTC'"))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("arguments", [[], ["-n", "2"]])
def test_both_paths_and_further_databases_work(project: Project, arguments: list[str]) -> None:
    write_on_both_paths(
        project,
        """
from sqlalchemy.ext.asyncio import create_async_engine

async def test_it(client, db):
    assert (await client.post("/users/ada")).status_code == 200
    assert await emails(db) == ["ada"]
    assert await db.scalar(sa.text("SELECT current_user::text")) == "application"

@pytest.mark.fresh_database
async def test_an_engine_of_the_test(fresh_database_url):
    engine = create_async_engine(fresh_database_url)
    async with engine.begin() as connection:
        await connection.execute(sa.text("INSERT INTO users (email) VALUES ('ada')"))
    await engine.dispose()

async def test_an_empty_one(empty_database):
    engine = create_async_engine(empty_database)
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE users ()"))
    await engine.dispose()
""",
    )

    result = project.run(*arguments)

    result.assert_outcomes(passed=6)
    assert counts(result)[1:] == (0, 0)
