"""Promise 2: whatever a test does to its database is gone for the next test."""

import pytest

from guarantees.factories import LOOK, write_tests, write_then_look
from guarantees.project import Project
from guarantees.report import ENDS, LOST, counts, ran_again
from guarantees.servers import Database


def test_what_a_test_commits_is_gone_for_the_next(project: Project, database: Database) -> None:
    project.write(
        "tests/test_it.py",
        """
from pathlib import Path

import pytest
import sqlalchemy as sa

@pytest.mark.parametrize("time", [1, 2])
async def test_starts_empty(client, db, time):
    Path("database.txt").write_text(await db.scalar(sa.text("SELECT current_database()::text")))
    assert (await client.post("/users/ada")).status_code == 200
    assert (await client.get("/users/count")).json() == 1
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    name = (project.path / "database.txt").read_text(encoding="utf-8")
    assert database.query("SELECT datname FROM pg_database WHERE datname = :n", n=name) == []


def test_committed_changes_and_deletions_of_the_roles_are_gone(project: Project) -> None:
    write_then_look(
        project,
        """
async def test_1_empties_the_table_that_every_test_needs(db, get_db_session):
    await db.execute(sa.update(Role).where(Role.name == "member").values(name="guest"))
    await db.commit()
    async with get_db_session() as other:
        await other.execute(sa.delete(Role).where(Role.name == "admin"))
        await other.commit()
    assert (await db.scalars(sa.select(Role.name))).all() == ["guest"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_what_a_failed_commit_and_a_rollback_leave_is_gone(project: Project) -> None:
    write_then_look(
        project,
        """
async def test_1_commits_after_an_error(client, db):
    await client.post("/users/grace")
    assert (await client.post("/users/grace")).status_code == 409
    await client.post("/users/alan")
    db.add(User(email="alan"))
    with pytest.raises(sa.exc.IntegrityError):
        await db.commit()
    await db.rollback()
    db.add(User(email="linus"))
    await db.commit()
    assert (await client.get("/users/count")).json() == 3
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_what_a_failing_test_committed_is_gone(project: Project) -> None:
    write_then_look(
        project,
        """
async def test_1_fails_with_all_in_the_air(client, db):
    await client.post("/users/ada")
    db.add(User(email="grace"))
    await db.flush()
    with pytest.raises(sa.exc.ProgrammingError):
        await db.execute(sa.text("SELECT * FROM nowhere"))
    raise RuntimeError("the test's own")
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E * RuntimeError: the test's own"])


def test_a_request_cancelled_in_mid_query_reaches_no_other_test(project: Project) -> None:
    write_then_look(
        project,
        """
@app.post("/slow")
async def write_slowly(db: Db) -> None:
    db.add(User(email="ada"))
    await db.commit()
    db.add(User(email="grace"))
    await db.flush()
    await db.execute(sa.text("SELECT pg_sleep(30)"))

async def test_1_gives_up_a_request(client):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.post("/slow"), 0.2)
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_ddl_and_temporary_tables_are_gone(project: Project) -> None:
    write_then_look(
        project,
        """
async def test_1_changes_the_schema(db):
    for statement in (
        "CREATE TABLE extra (id int)",
        "CREATE TEMPORARY TABLE notes (id int)",
        "CREATE TYPE mood AS ENUM ('sad', 'happy')",
        "ALTER TABLE users ADD COLUMN shoe_size int",
        "DROP TABLE roles CASCADE",
    ):
        await db.execute(sa.text(statement))
    await db.commit()

async def test_2_finds_the_schema_of_the_models(db):
    assert await db.scalar(sa.text("SELECT to_regclass('extra')")) is None
    assert await db.scalar(sa.text("SELECT to_regclass('pg_temp.notes')")) is None
    assert await db.scalar(sa.text("SELECT to_regtype('mood')")) is None
    columns = (await db.scalars(sa.text(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'users'::regclass AND attnum > 0"
        " AND NOT attisdropped ORDER BY attnum"
    ))).all()
    assert columns == ["id", "email", "desk", "role_id"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=3)


def test_ddl_leaves_no_plan_of_a_changed_table_on_the_connection(project: Project) -> None:
    write_tests(
        project,
        """
async def test_1_changes_a_column(db):
    await db.execute(sa.text("ALTER TABLE users ALTER COLUMN email TYPE int USING 1"))
    await db.execute(sa.text("INSERT INTO users (email) VALUES (1)"))
    await db.commit()
    assert (await db.scalars(sa.text("SELECT email FROM users"))).all() == [1]

async def test_2_reads_the_column_of_the_models(db):
    db.add(User(email="ada"))
    await db.commit()
    assert (await db.scalars(sa.text("SELECT email FROM users"))).all() == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert ran_again(result) == {}
    assert counts(result) == (0, 1, 0)


@pytest.mark.parametrize(
    "commit",
    ['await db.execute(sa.text("COMMIT"))', "await (await db.connection()).commit()"],
)
def test_a_commit_past_the_session_reaches_no_other_test(project: Project, commit: str) -> None:
    write_then_look(
        project,
        f"""
async def test_1_commits_for_good(client, db):
    await client.post("/users/ada")
    db.add(User(email="grace"))
    await db.flush()
    {commit}
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert set(ran_again(result).values()) <= {ENDS}


def test_settings_cursors_and_listen_are_gone(project: Project) -> None:
    write_then_look(
        project,
        """
async def test_1_leaves_its_session_state(db):
    for statement in (
        "SET search_path = pg_catalog",
        "SET SESSION statement_timeout = 12345",
        "SELECT set_config('app.tenant', 'ours', false)",
        "LISTEN news",
        "DECLARE rows CURSOR WITH HOLD FOR SELECT 1",
    ):
        await db.execute(sa.text(statement))
        await db.commit()

async def test_2_finds_none_of_it(db):
    assert await db.scalar(sa.text("SHOW search_path")) == '"$user", public'
    assert await db.scalar(sa.text("SHOW statement_timeout")) == "0"
    assert not await db.scalar(sa.text("SELECT current_setting('app.tenant', true)"))
    assert (await db.scalars(sa.text("SELECT pg_listening_channels()"))).all() == []
    assert (await db.scalars(sa.text("SELECT name FROM pg_cursors WHERE is_holdable"))).all() == []
""",
    )

    result = project.run()

    result.assert_outcomes(passed=3)


def test_advisory_locks_are_gone(project: Project) -> None:
    project.extend_schema(
        "CREATE FUNCTION lock_both() RETURNS void LANGUAGE sql"
        " AS 'SELECT pg_advisory_lock(77), pg_advisory_lock_shared(78)'"
    )
    write_tests(
        project,
        """
TAKEN = sa.text("SELECT objid::int FROM pg_locks WHERE locktype = 'advisory' AND classid = 0"
                " AND pid = pg_backend_pid()")

async def test_1_leaves_what_no_rollback_undoes(db):
    await db.execute(sa.text("SELECT lock_both()"))
    await db.commit()
    assert len((await db.scalars(TAKEN)).all()) == 2

async def test_2_finds_none_of_it(db):
    assert (await db.scalars(TAKEN)).all() == []
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_prepared_statements_are_gone(project: Project) -> None:
    write_tests(
        project,
        """
PREPARED = sa.text("SELECT name FROM pg_prepared_statements WHERE from_sql")

async def test_1_leaves_what_no_rollback_undoes(db):
    await db.execute(sa.text('PREPARE "my plan" AS SELECT 1'))
    await db.commit()
    assert (await db.scalars(PREPARED)).all() == ["my plan"]

async def test_2_finds_none_of_it(db):
    assert (await db.scalars(PREPARED)).all() == []
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_options_of_the_connection_end_with_the_test(project: Project) -> None:
    write_tests(
        project,
        """
async def test_1(db_transaction):
    await db_transaction.execution_options(schema_translate_map={None: "nowhere"})

async def test_2(db_transaction):
    assert (await db_transaction.execute(sa.select(User))).all() == []
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_the_apps_pool_never_touches_the_connection_of_the_test(project: Project) -> None:
    project.app_engine("", "pool_pre_ping=True, pool_recycle=0")
    write_tests(
        project,
        """
async def test_it(client, db):
    await asyncio.gather(*(client.get("/users/count") for _ in range(5)))
""",
    )

    result = project.run("--refusals-fail")

    result.assert_outcomes(passed=1)


def test_a_killed_connection_costs_its_own_test_at_most(project: Project) -> None:
    write_tests(
        project,
        """
async def test_0_is_before(client):
    await client.post("/users/alan")

async def test_1_is_cut_off(client, db):
    await client.post("/users/ada")
    await db.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
"""
        + LOOK
        + """
async def test_3_starts_empty_too(client):
    assert (await client.get("/users/count")).json() == 0
""",
    )

    result = project.run("--refusals-fail")

    # The test that lost its connection may also report an error of its tear-down.
    assert (result.parseoutcomes()["passed"], result.parseoutcomes()["failed"]) == (3, 1)
    result.stdout.fnmatch_lines(["E * Refused: " + LOST + "*"])
    result.stdout.fnmatch_lines(["FAILED tests/test_it.py::test_1_is_cut_off*"])
    result.stdout.no_fnmatch_line("ERROR tests/test_it.py::test_[023]*")


def test_a_test_that_idles_too_long_is_told_so(project: Project) -> None:
    write_tests(
        project,
        """
async def test_1_idles(client, db):
    await client.post("/users/ada")
    await db.execute(sa.text("SET idle_in_transaction_session_timeout = 50"))
    await asyncio.sleep(0.5)
    await db.execute(sa.text("SELECT 1"))
"""
        + LOOK,
    )

    result = project.run("--refusals-fail")

    assert (result.parseoutcomes()["passed"], result.parseoutcomes()["failed"]) == (1, 1)
    result.stdout.fnmatch_lines(["E * Refused: " + LOST + "*time-out*"])


DDL = [
    "DROP TABLE users CASCADE",
    "DROP TABLE users, roles; CREATE TABLE users (id int PRIMARY KEY, email text)",
    "ALTER TABLE users ALTER email TYPE bytea USING email::bytea",
    "ALTER TABLE users ALTER id TYPE bigint; INSERT INTO users (email) VALUES ('x')",
    (
        "ALTER TABLE users DROP CONSTRAINT users_desk_key; "
        "ALTER TABLE users ADD UNIQUE (email) DEFERRABLE INITIALLY DEFERRED"
    ),
    "CREATE TABLE more (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO more VALUES (1)",
    "-- a comment\nALTER TABLE users RENAME email TO mail",
    "/* SELECT */ ALTER TABLE users ADD extra int; UPDATE users SET extra = 1",
    "DO $$ BEGIN EXECUTE 'ALTER TABLE users ADD hidden int DEFAULT 7'^ END $$",
    (
        "CREATE FUNCTION change() RETURNS void LANGUAGE plpgsql AS "
        "$$ BEGIN ALTER TABLE users DROP desk^ END $$; SELECT change()"
    ),
    "CREATE TYPE mood AS ENUM ('sad'); ALTER TABLE users ADD mood mood DEFAULT 'sad'",
    "CREATE SCHEMA other; CREATE TABLE other.users (id int); SET search_path = other",
    "CREATE OR REPLACE FUNCTION lower(text) RETURNS text LANGUAGE sql AS 'SELECT upper($1)'",
    "ALTER SEQUENCE users_id_seq RESTART 500 INCREMENT 7",
    "TRUNCATE users, roles RESTART IDENTITY CASCADE",
    "CREATE VIEW seen AS SELECT * FROM users; DROP TABLE users CASCADE",
    "CREATE INDEX extra ON users (desk); ALTER TABLE users ADD CHECK (desk > 0)",
]


LOOKS_FOR_DDL = """
ALL = sa.text(
    "SELECT attrelid::regclass::text, attname, atttypid::regtype::text, attnotnull, atthasdef"
    " FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid WHERE attrelid >= 16384"
    " AND relnamespace = 'public'::regnamespace"
    " UNION ALL SELECT proname, prosrc, '', false, false FROM pg_proc WHERE oid >= 16384"
    " AND proname !~ 'fastapi_conftest'"
    " UNION ALL SELECT conname, contype::text, '', condeferrable, condeferred FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace"
)

async def everything(db):
    return {tuple(row) for row in await db.execute(ALL)}

async def test_0_notes(db):
    global clean
    clean = await everything(db)
    assert len(clean) > 10

async def attack(db, client, script):
    await client.post("/users/ada?desk=1")
    db.add(User(email="grace", desk=2))
    await db.flush()
    for statement in script.split(";"):
        await db.execute(sa.text(statement.replace("^", ";")))
    await db.commit()
    await db.execute(sa.text("CREATE TABLE behind (id int)"))
    await db.execute(sa.text("INSERT INTO behind VALUES (1)"))
    await db.rollback()
    await db.execute(sa.text("INSERT INTO public.roles (name) SELECT 'x' WHERE false")
                     if "roles" not in script else sa.text("SELECT 1"))
    await db.commit()

async def look(db, client):
    assert await everything(db) == clean
    for number in 1, 2:
        user = User(email=f"ada{number}", desk=number)
        db.add(user)
        await db.commit()
        assert user.id == number
    assert (await client.post("/users/joan?desk=2")).status_code == 409
    assert sorted((await db.scalars(sa.select(User.email))).all()) == ["ada1", "ada2"]
    assert (await db.scalars(sa.select(Role.name).order_by(Role.name))).all() == ["admin", "member"]
    assert await db.scalar(sa.text("SELECT lower('A')")) == "a"
"""


def test_the_next_test_runs_as_if_there_had_been_no_ddl(project: Project) -> None:
    pairs = (
        f"\nasync def test_{n}_changes(db, client): await attack(db, client, {script!r})\n"
        f"async def test_{n}_looks(db, client): await look(db, client)\n"
        for n, script in enumerate(DDL, 1)
    )
    write_tests(project, LOOKS_FOR_DDL + "".join(pairs))

    result = project.run()

    result.assert_outcomes(passed=1 + 2 * len(DDL))


def test_sequences_start_afresh(project: Project) -> None:
    write_tests(
        project,
        """
@pytest.mark.parametrize("move", [
    "SELECT nextval('users_id_seq')", "SELECT setval('users_id_seq', 500)",
    "SELECT setval('users_id_seq', 500, false)", "SELECT 1"])
async def test_it(db, client, move):
    assert await db.scalar(sa.select(sa.func.max(Role.id))) == 2
    for number in 1, 2:
        db.add(user := User(email=f"ada{number}"))
        await db.commit()
        assert user.id == number
    await db.execute(sa.text(move))
    await db.commit()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert ran_again(result) == {}
