"""Promise 4: one marker gives a test a database with real connections and real commits."""

from guarantees.project import Project
from guarantees.report import ran_again
from guarantees.servers import Database

IMPORTS = """
import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.db import SessionLocal
from app.main import Db, app
from app.models import Role, User

NAME = sa.text("SELECT current_database()::text")

def note(name):  # for the look from outside, whatever the run prints
    with Path("databases.txt").open("a") as file:
        file.write(name + chr(10))
"""


def write(project: Project, source: str) -> None:
    """Write the project's tests, behind the lines above."""
    project.write("tests/test_it.py", IMPORTS + source)


def databases_of_the_run(project: Project) -> list[str]:
    """Return the names that the inner tests noted."""
    return (project.path / "databases.txt").read_text(encoding="utf-8").split()


def test_the_marker_works_on_a_test_a_class_and_a_module(
    project: Project, database: Database
) -> None:
    body = (
        "client, db):\n        note(await db.scalar(NAME))\n        await client.post('/users/ada')"
    )
    project.write(
        "tests/test_some.py",
        IMPORTS
        + f"""
class TestOrdinary:
    async def test_a(self, {body}

    @pytest.mark.fresh_database
    async def test_b(self, {body}

@pytest.mark.fresh_database
class TestFresh:
    async def test_c(self, {body}

    async def test_d(self, {body}

class TestOrdinaryAgain:
    async def test_e(self, {body}
""",
    )
    project.write(
        "tests/test_whole.py",
        IMPORTS
        + f"""
pytestmark = pytest.mark.fresh_database

class TestInAModule:
    async def test_f(self, {body}

    async def test_g(self, {body}
""",
    )

    result = project.run("--strict-markers")

    result.assert_outcomes(passed=7)
    a, b, c, d, e, f, g = names = databases_of_the_run(project)
    assert a == e
    assert b == c == d == f == g != a, "one database of the process, kept for all that are marked"
    assert database.query("SELECT datname FROM pg_database WHERE datname = ANY (:n)", n=names) == []


def test_what_a_failing_test_has_left_open_is_gone_for_the_next(
    project: Project, database: Database
) -> None:
    write(
        project,
        """
pytestmark = pytest.mark.fresh_database

async def test_1_fails_with_transactions_open(db, get_db_session, fresh_database):
    note(await db.scalar(NAME))
    db.add(User(email="ada"))
    await db.commit()
    db.add(User(email="grace"))
    await db.flush()
    global stray, session  # so that nobody closes them
    stray = await fresh_database.connect()
    await stray.execute(sa.text("INSERT INTO roles (name) VALUES ('boss')"))
    session = get_db_session()
    session.add(User(email="joan"))
    await session.flush()
    raise RuntimeError("the test's own")

async def test_2_starts_empty(db):
    note(await db.scalar(NAME))
    for late in stray, session:
        with suppress(Exception):
            await late.commit()
    assert (await db.scalars(sa.select(User.email))).all() == []
    assert (await db.scalars(sa.select(Role.name).order_by(Role.name))).all() == ["admin", "member"]
    db.add(user := User(email="ada"))
    await db.commit()
    assert user.id == 1
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E * RuntimeError: the test's own"])
    names = databases_of_the_run(project)
    assert len(set(names)) == 1
    assert database.query("SELECT datname FROM pg_database WHERE datname = ANY (:n)", n=names) == []


def test_the_same_fixtures_work_on_it(project: Project) -> None:
    write(
        project,
        """
@app.get("/me")
async def me(db: Db) -> str:
    return await db.scalar(NAME)

@pytest.mark.fresh_database
async def test_it(client, client_factory, db, get_db_session, regular_user, admin_user):
    assert regular_user.email.startswith("member") and admin_user.email.startswith("admin")
    own = await db.scalar(NAME)
    async with get_db_session() as other, SessionLocal() as apps:
        assert await other.scalar(NAME) == await apps.scalar(NAME) == own
    assert (await client.get("/me")).json() == (await client_factory(admin_user).get("/me")).json()
    assert (await client.get("/me")).json() == own
    assert (await client.get("/users/count")).json() == 2
    await client.post("/background/ada")
    assert (await client.get("/users/count")).json() == 3
    assert (await db.scalars(sa.select(Role.name).order_by(Role.name))).all() == ["admin", "member"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)


def test_requests_and_sessions_run_at_the_same_time(project: Project) -> None:
    write(
        project,
        """
pytestmark = pytest.mark.fresh_database
arrived = 0

@app.post("/meet")
async def wait_for_the_other(db: Db) -> int:
    global arrived
    pid = await db.scalar(sa.text("SELECT pg_backend_pid()"))
    arrived += 1
    while arrived < 2:
        await asyncio.sleep(0.01)
    return pid

async def test_two_requests_are_in_their_handlers_at_once(client):
    answers = await asyncio.wait_for(
        asyncio.gather(client.post("/meet"), client.post("/meet")), 5
    )
    assert len({answer.json() for answer in answers}) == 2

@app.post("/claim")
async def claim(db: Db) -> str:
    query = sa.select(User).where(User.desk.is_(None)).order_by(User.email).limit(1)
    user = await db.scalar(query.with_for_update(skip_locked=True))
    await asyncio.sleep(0.1)
    user.desk = 1 if user.email == "ada" else 2
    await db.commit()
    return user.email

async def test_skip_locked_gives_each_claim_another_row(client, db):
    db.add_all([User(email="ada"), User(email="grace")])
    await db.commit()
    claims = await asyncio.gather(client.post("/claim"), client.post("/claim"))
    assert sorted(each.json() for each in claims) == ["ada", "grace"]

async def test_sessions_do_not_see_what_others_have_not_committed(get_db_session):
    async with get_db_session() as writer, get_db_session() as reader:
        writer.add(User(email="ada"))
        await writer.flush()
        assert await reader.scalar(sa.select(User.email)) is None
        await writer.commit()
        assert await reader.scalar(sa.select(User.email)) == "ada"

async def test_a_deferred_constraint_fails_at_a_real_commit(db):
    db.add_all([User(email="ada", desk=1), User(email="grace", desk=1)])
    await db.flush()
    with pytest.raises(sa.exc.IntegrityError):
        await db.commit()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)


def test_notifications_arrive_and_time_moves(project: Project) -> None:
    write(
        project,
        """
pytestmark = pytest.mark.fresh_database

@app.post("/notify")
async def notify(db: Db) -> None:
    await db.execute(sa.text("SELECT pg_notify('news', 'from a request')"))
    await db.commit()

async def test_listen_and_notify(client, fresh_database):
    heard = asyncio.get_running_loop().create_future()
    async with fresh_database.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        await raw.add_listener("news", lambda *event: heard.set_result(event[3]))
        await client.post("/notify")
        assert await asyncio.wait_for(heard, 5) == "from a request"

async def test_now_moves_between_transactions(db):
    first = await db.scalar(sa.text("SELECT now()"))
    await db.commit()
    assert await db.scalar(sa.text("SELECT now()")) > first
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_one_that_is_asked_for_late_comes_with_the_second_run(project: Project) -> None:
    write(
        project,
        """
async def test_it(request, db):
    late = request.getfixturevalue("fresh_database")
    async with late.begin() as connection:
        await connection.execute(sa.text("INSERT INTO users (email) VALUES ('ada')"))
    assert (await db.scalars(sa.select(User.email))).all() == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)
    assert [*ran_again(result)] == ["test_it"]


def test_sequences_start_afresh(project: Project) -> None:
    write(
        project,
        """
async def test_0_moves_the_sequence_of_the_process(client):
    await client.post("/users/ada")

@pytest.mark.fresh_database
@pytest.mark.parametrize("time", [1, 2])
async def test_1_counts_from_one(db, time):
    db.add(user := User(email="ada"))
    await db.commit()
    assert user.id == 1
""",
    )

    result = project.run()

    result.assert_outcomes(passed=3)


def test_every_worker_has_a_database_of_each_kind_and_keeps_both_clean(
    project: Project, database: Database
) -> None:
    write(
        project,
        """
@pytest.mark.fresh_database
@pytest.mark.parametrize("time", range(4))
async def test_1_commits_for_good(client, db, time):
    note(await db.scalar(NAME))
    await client.post("/users/ada")
    assert (await client.get("/users/count")).json() == 1

@pytest.mark.parametrize("time", range(4))
async def test_2_starts_empty(client, db, time):
    assert (await client.get("/users/count")).json() == 0
    assert await db.scalar(NAME) not in Path("databases.txt").read_text().split()
""",
    )

    result = project.run("-n", "2")

    result.assert_outcomes(passed=8)
    names = databases_of_the_run(project)
    assert len(set(names)) == 2
    assert database.query("SELECT datname FROM pg_database WHERE datname = ANY (:n)", n=names) == []
