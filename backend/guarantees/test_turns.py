"""Promise 3: sessions take turns as connections would, and nothing waits for ever."""

import pytest

from guarantees.factories import write_on_both_paths, write_tests
from guarantees.project import Project
from guarantees.report import CUT_OFF, UNCOMMITTED, causes, ran_again

pytestmark = pytest.mark.usefixtures("each_driver")


def test_a_race_that_production_loses_is_not_won(project: Project) -> None:
    write_on_both_paths(
        project,
        """
from fastapi_conftest.record import running

async def all_of(these):
    while len(these) < 2:
        await asyncio.sleep(0)

async def claim(email, first, looked):
    async with SessionLocal() as session:
        await session.execute(sa.text("SELECT 1"))
        first.append(email)
        await all_of(first)
        if await session.scalar(sa.select(sa.func.count()).select_from(User)):
            return 409
        looked.append(email)
        if running().real_commits:  # a slow server would decide for itself who looks first
            await all_of(looked)
        session.add(User(email=email))
        await session.commit()
        return 200

@pytest.mark.parametrize("time", range(5))
async def test_both_look_before_either_writes(db, time):
    first, looked = [], []
    answers = await asyncio.gather(claim("ada", first, looked), claim("grace", first, looked))
    assert answers == [200, 200]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=10)
    assert len(ran_again(result)) == 5


def test_readers_at_once_are_served_one_statement_after_the_other(project: Project) -> None:
    write_tests(
        project,
        """
from app.db import SessionLocal

async def read(name, order):
    async with SessionLocal() as session:
        for _ in range(3):
            await session.execute(sa.text("SELECT 1"))
            order.append(name)

async def test_it(db):
    order = []
    await asyncio.gather(*(read(name, order) for name in "abc"))
    assert order == ["a", "b", "c"] * 3
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)
    assert ran_again(result) == {}


def test_a_clock_that_stands_still_stops_nothing(project: Project) -> None:
    write_on_both_paths(
        project,
        """
async def test_it(client, monkeypatch):
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    answers = await asyncio.gather(*(client.get("/users/count") for _ in range(3)))
    assert [each.json() for each in answers] == [0, 0, 0]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert ran_again(result) == {}


def test_two_tasks_in_one_session_fail_as_in_production(project: Project) -> None:
    project.app_engine("", "pool_pre_ping=True")
    write_on_both_paths(
        project,
        """
async def test_it(client):
    await client.get("/users/count")
    session = SessionLocal()
    tasks = [session.execute(sa.text("SELECT 1")) for _ in range(2)]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    await session.close()
    assert [each for each in found if isinstance(each, sa.exc.InvalidRequestError)]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_refusal_ends_the_first_run_though_nobody_hears_it(project: Project) -> None:
    write_tests(
        project,
        """
from pathlib import Path
from app.db import SessionLocal

async def test_it(db):
    both = asyncio.Barrier(2)

    async def work(email):
        async with SessionLocal() as session:
            session.add(User(email=email))
            await session.flush()
            await both.wait()
            session.add(User(email=f"{email}2"))
            await session.commit()

    results = await asyncio.gather(work("ada"), work("grace"), return_exceptions=True)
    with Path("noted.txt").open("a") as file:
        print("the end", file=file)
    assert results == [None, None]
""",
    )

    again, final = project.run(), project.run("--refusals-fail")

    again.assert_outcomes(passed=1)
    assert ran_again(again)["test_it"].startswith(UNCOMMITTED)
    assert project.read("noted.txt") == "the end\n"
    final.assert_outcomes(failed=1)
    final.stdout.fnmatch_lines(["It was refused in a task that the test was waiting for."])


def test_who_waits_too_long_for_another_session_is_told_for_which_statement(
    project: Project,
) -> None:
    project.in_folder("savepoint", "PATIENCE = 10", "PATIENCE = 1")
    write_tests(
        project,
        """
from app.db import SessionLocal

async def execute(statement):
    async with SessionLocal() as session:
        await session.execute(sa.text(statement))

async def test_it(db):
    await asyncio.gather(execute("SELECT pg_sleep(1.5)"), execute("SELECT 1"))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)
    assert ran_again(result) == {
        "test_it": "a wait of 1 s for another session, which executes SELECT pg_sleep(1.5)"
    }


def test_who_waits_too_long_for_a_lock_is_told_what_to_do(project: Project) -> None:
    project.in_folder("real_commits", "lock_timeout = '5s'", "lock_timeout = '1s'")
    write_tests(
        project,
        """
from app.db import SessionLocal

@pytest.fixture
async def some_rows(db):
    async with SessionLocal() as session:
        session.add(User(email="ada"))
        await session.commit()
    yield
    async with SessionLocal() as session:
        await session.execute(sa.delete(User))
        await session.commit()

@pytest.mark.fresh_database
async def test_it(some_rows, db):
    (await db.scalars(sa.select(User).with_for_update())).one()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*Another session of this test holds the lock, such as that of db: commit*",
            "*What a fixture deletes at its end is gone without it.*",
        ]
    )


LIMIT = """
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    with open("limits.txt", "a") as file:
        print("begins", file=file)
    return (yield)
"""


def test_a_time_limit_begins_anew_with_the_second_run(project: Project) -> None:
    project.write("limit.py", LIMIT)
    write_tests(project, 'async def test_it(db): await db.execute(sa.text("COMMIT"))\n')

    result = project.run("-p", "limit")

    result.assert_outcomes(passed=1)
    assert project.read("limits.txt") == "begins\n" * 2


def test_what_the_first_run_left_outside_the_database_is_told_where_the_second_fails(
    project: Project,
) -> None:
    write_tests(
        project,
        """
OUTBOX = []

async def test_one_mail(db):
    OUTBOX.append("welcome")
    await db.execute(sa.text("COMMIT"))
    assert len(OUTBOX) == 1
""",
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["What both runs have left outside the database*is there twice."])
    assert causes(result, "refused") == {}


def test_after_a_cancelled_statement_a_commit_fails_as_in_production(project: Project) -> None:
    write_on_both_paths(
        project,
        """
async def test_it(db):
    db.add(User(email="ada"))
    await db.flush()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await db.execute(sa.text("SELECT pg_sleep(10)"))
    with pytest.raises(sa.exc.PendingRollbackError):
        await db.commit()
    await db.rollback()
    assert await emails(db) == []

async def test_rolled_back(db):
    await db.execute(sa.text("SELECT 1"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await db.execute(sa.text("SELECT pg_sleep(10)"))
    await db.rollback()
    db.add(User(email="ada"))
    await db.commit()
    assert await emails(db) == ["ada"]

async def test_nested(db):
    await db.execute(sa.text("SELECT 1"))
    with pytest.raises(TimeoutError):
        async with db.begin_nested(), asyncio.timeout(0.05):
            await db.execute(sa.text("SELECT pg_sleep(10)"))
    await db.rollback()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=6)
    assert ran_again(result) == {"test_it[savepoints]": CUT_OFF}
