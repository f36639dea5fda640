"""Promise 3: where savepoints nest and transactions do not, the result is production's or none."""

import pytest

from guarantees.factories import write_on_both_paths
from guarantees.project import Project
from guarantees.report import ADVICE, UNCOMMITTED, counts, ran_again

OVERLAPS = "commit_inside_anothers_transaction", "rollback_over_anothers_commit"


def check_refused(result: pytest.RunResult, *names: str) -> None:
    """Check that these tests, and no others, were refused, with the advice."""
    failed = [line.split("::")[1] for line in result.outlines if line.startswith("FAILED ")]
    assert sorted(line.split(" - ")[0] for line in failed) == sorted(names)
    assert str(result.stdout).count(f"Failed: Refused: {UNCOMMITTED}") >= len(names)
    result.stdout.fnmatch_lines([ADVICE])
    assert counts(result)[2] == len(names)


def check_ran_again(result: pytest.RunResult, *names: str) -> None:
    """Check that these tests, and no others, had to run again, and that the report says why."""
    assert sorted(ran_again(result)) == sorted(names)
    assert all(reason.startswith(UNCOMMITTED) for reason in ran_again(result).values())


def test_a_commit_after_an_ignored_error_rolls_back_in_silence(project: Project) -> None:
    write_on_both_paths(
        project,
        """
@app.post("/ignore")
async def ignore_an_error(db: Db) -> None:
    db.add(User(email="lost"))
    await db.flush()
    with pytest.raises(sa.exc.DBAPIError):
        await db.execute(sa.text("SELECT 1 / 0"))
    await db.commit()

async def test_it(client, db):
    assert (await client.post("/ignore")).status_code == 200
    assert (await client.post("/users/grace")).status_code == 200
    assert await emails(db) == ["grace"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_rollback_spares_what_another_session_committed(project: Project) -> None:
    write_on_both_paths(
        project,
        """
@app.post("/audited")
async def read_and_let_another_session_write(db: Db) -> None:
    await db.scalar(sa.select(User.id))
    async with SessionLocal() as audit:
        audit.add(User(email="audit"))
        await audit.commit()
    raise RuntimeError("the request only read")

async def test_the_test_has_read_something_before_the_request(client, db):
    assert await db.scalar(sa.select(sa.func.count()).select_from(User)) == 0
    assert (await client.post("/users/ada?desk=1")).status_code == 200
    await db.rollback()
    assert await emails(db) == ["ada"]
    assert await db.scalar(sa.select(sa.func.count()).select_from(User)) == 1
    assert (await client.post("/users/grace?desk=1")).status_code == 409
    await db.rollback()
    assert await emails(db) == ["ada"]

async def test_the_request_has_read_something_before_its_audit_log(client, db):
    with pytest.raises(RuntimeError, match="the request only read"):
        await client.post("/audited")
    assert await emails(db) == ["audit"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)


def test_uncommitted_changes_of_the_test_are_noticed_when_a_request_begins(
    project: Project,
) -> None:
    project.write(
        "tests/test_it.py",
        """
import sqlalchemy as sa

from app.models import User

async def test_flushed(client, db):
    db.add(User(email="ada"))
    await db.flush()
    await client.get("/users/count")

async def test_executed(client, db):
    await db.execute(sa.insert(User).values(email="ada"))
    await client.get("/users/count")

async def test_nested(client, db):
    async with db.begin_nested():
        db.add(User(email="ada"))
    await client.get("/users/count")

async def test_committed_or_rolled_back(client, db):
    db.add(User(email="ada"))
    await db.commit()
    db.add(User(email="grace"))
    await db.flush()
    await db.rollback()
    assert (await client.get("/users/count")).json() == 1
""",
    )

    refused, again = project.run("--refusals-fail"), project.run()

    names = "test_flushed", "test_executed", "test_nested"
    refused.assert_outcomes(passed=1, failed=3)
    check_refused(refused, *names)
    refused.stdout.fnmatch_lines(["*`await db.commit()` before the request*"])
    again.assert_outcomes(passed=4)
    check_ran_again(again, *names)


def test_sessions_that_overlap_are_noticed(project: Project) -> None:
    write_on_both_paths(
        project,
        """
async def test_a_commit_inside_anothers_transaction(get_db_session):
    async with get_db_session() as first, get_db_session() as second:
        first.add(User(email="first"))
        await first.flush()
        await second.scalar(sa.select(1))
        await first.commit()

async def test_a_rollback_over_anothers_commit(get_db_session):
    async with get_db_session() as first, get_db_session() as second:
        first.add(User(email="first"))
        await first.flush()
        second.add(User(email="second"))
        await second.commit()
        await first.rollback()

async def test_the_next_test_starts_empty(db):
    assert await emails(db) == []
""",
    )

    refused, again = project.run("--refusals-fail"), project.run()

    names = [f"test_a_{end}[savepoints]" for end in OVERLAPS]
    refused.assert_outcomes(passed=4, failed=2)
    check_refused(refused, *names)
    again.assert_outcomes(passed=6)
    check_ran_again(again, *names)


def test_no_new_session_sees_what_another_has_not_committed(project: Project) -> None:
    write_on_both_paths(
        project,
        """
COUNT = sa.select(sa.func.count()).select_from(User)

@pytest.mark.parametrize("of_test", [True, False])
async def test_read_by_a_session_begun_later(get_db_session, of_test):
    async with SessionLocal() as writer, (get_db_session if of_test else SessionLocal)() as reader:
        writer.add(User(email="ada"))
        await writer.flush()
        assert await reader.scalar(COUNT) == 0

""",
    )

    refused, again = project.run("--refusals-fail"), project.run()

    # Savepoints cannot show what production does here.
    names = [f"test_read_by_a_session_begun_later[savepoints-{of}]" for of in ("True", "False")]
    refused.assert_outcomes(passed=2, failed=2)
    check_refused(refused, *names)
    again.assert_outcomes(passed=4)
    check_ran_again(again, *names)


def test_a_request_that_a_middleware_runs_in_a_task_of_its_own_does_not_see_them_either(
    project: Project,
) -> None:
    write_on_both_paths(
        project,
        """
from starlette.middleware.base import BaseHTTPMiddleware

async def pass_on(request, call_next):
    return await call_next(request)

app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)

async def test_it(client, db):
    db.add(User(email="ada"))
    await db.flush()
    assert (await client.get("/users/count")).json() == 0
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    check_ran_again(result, "test_it[savepoints]")


def test_a_session_that_only_reads_neither_loses_nor_sees_the_others_changes(
    project: Project,
) -> None:
    write_on_both_paths(
        project,
        """
COUNT = sa.select(sa.func.count()).select_from(User)

async def test_lost_by_its_rollback(get_db_session, db):
    async with get_db_session() as writer, get_db_session() as reader:
        assert await writer.scalar(COUNT) == await reader.scalar(COUNT) == 0
        writer.add(User(email="ada"))
        await writer.flush()
        await reader.rollback()
        await writer.commit()
    assert await emails(db) == ["ada"]

async def test_seen_before_the_commit(get_db_session):
    async with get_db_session() as writer, get_db_session() as reader:
        assert await reader.scalar(COUNT) == 0
        writer.add(User(email="ada"))
        await writer.flush()
        assert await reader.scalar(COUNT) == 0
""",
    )

    result = project.run()

    # What savepoints cannot show is noticed.
    result.assert_outcomes(passed=4)
    check_ran_again(result, "test_seen_before_the_commit[savepoints]")


def test_sessions_of_several_tasks_write_at_once(project: Project) -> None:
    write_on_both_paths(
        project,
        """
async def add(factory, email, all_have_read):
    async with factory() as session:
        before = (await session.scalars(sa.select(User.email))).all()
        await all_have_read.wait()
        session.add(User(email=email))
        await session.flush()
        await asyncio.sleep(0.05)
        await session.commit()
        return before

async def test_they_read_at_once_and_write_at_once(get_db_session, db):
    barrier = asyncio.Barrier(3)
    before = await asyncio.gather(
        *(add(get_db_session, name, barrier) for name in ("ada", "grace", "joan"))
    )
    assert before == [[], [], []]
    assert await emails(db) == ["ada", "grace", "joan"]

async def test_the_later_ones_meet_the_unique_constraint(get_db_session, db):
    results = await asyncio.gather(
        *(add(get_db_session, "ada", asyncio.Barrier(1)) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results].count(sa.exc.IntegrityError) == 2
    assert await emails(db) == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)


def test_settings_of_a_transaction_end_with_it(project: Project) -> None:
    write_on_both_paths(
        project,
        """
async def test_it(get_db_session, db):
    async with get_db_session() as session:
        await session.execute(sa.text("SET LOCAL search_path = pg_catalog"))
        await session.execute(sa.text("SELECT set_config('app.tenant', 'ours', true)"))
        await session.execute(sa.text("SET LOCAL ROLE pg_monitor"))
        await session.commit()
    for session in (db, SessionLocal()):
        async with session:
            assert await session.scalar(sa.text("SHOW search_path")) == '"$user", public'
            assert not await session.scalar(sa.text("SELECT current_setting('app.tenant', true)"))
            assert await session.scalar(sa.text("SELECT current_user <> 'pg_monitor'"))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_what_a_function_wrote_is_committed_too(project: Project) -> None:
    write_on_both_paths(
        project,
        """
async def test_it(get_db_session, db):
    await db.execute(sa.text(
        "CREATE FUNCTION add_ada() RETURNS void BEGIN ATOMIC "
        "INSERT INTO users (email) VALUES ('ada'); END"
    ))
    await db.commit()
    async with get_db_session() as caller:
        await caller.execute(sa.text("SELECT add_ada()"))
        await caller.commit()
    await emails(db)
    await db.rollback()
    assert await emails(db) == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_session_that_is_never_closed_harms_no_other(project: Project) -> None:
    write_on_both_paths(
        project,
        """
import gc

async def leak(name):
    session = SessionLocal()
    session.add(User(email=name))
    await session.commit()
    await session.scalar(sa.select(1))  # holds its connection

async def test_it(get_db_session, db):
    await db.scalar(sa.select(1))  # before the other, whose connection is then the newest
    await leak("ada")
    await db.scalar(sa.select(1))
    gc.collect()
    assert await emails(db) == ["ada"]
    await leak("grace")

async def test_the_next_test(db):
    gc.collect()
    assert await emails(db) == []
""",
    )

    result = project.run("-k", "savepoints")

    result.assert_outcomes(passed=2, deselected=2)
    assert ran_again(result) == {}
    assert counts(result) == (0, 0, 0)
