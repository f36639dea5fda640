"""Promise 3: where savepoints nest and transactions do not, the result is production's or none."""

from guarantees.conftest import Project
from guarantees.test_fidelity import write

UNCOMMITTED = "Refused: another session of this test holds changes, or an error,"
ADVICE = "*With @pytest.mark.fresh_database the test has real connections, where this works.*"


def test_a_commit_after_an_ignored_error_rolls_back_in_silence(project: Project) -> None:
    write(
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
    write(
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


def test_uncommitted_changes_of_the_test_are_refused_when_a_request_begins(
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

    result = project.run()

    result.assert_outcomes(passed=1, failed=3)
    for name in "flushed", "executed", "nested":
        result.stdout.fnmatch_lines([f"FAILED tests/test_it.py::test_{name} - Failed: Refused*"])
    result.stdout.fnmatch_lines([f"*{UNCOMMITTED}*`await db.commit()` before the request*", ADVICE])


def test_sessions_that_overlap_are_refused_with_the_way_out(project: Project) -> None:
    write(
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

    result = project.run()

    result.assert_outcomes(passed=4, failed=2)
    result.stdout.no_fnmatch_line("FAILED*real*")
    assert str(result.stdout).count(ADVICE.strip("*")) == 2


def test_no_new_session_sees_what_another_has_not_committed(project: Project) -> None:
    write(
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

    result = project.run()

    # Savepoints cannot show what production does here, so that the test must fail and say so.
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.no_fnmatch_line("FAILED*real*")
    assert str(result.stdout).count(ADVICE.strip("*")) == 2


def test_a_request_that_a_middleware_runs_in_a_task_of_its_own_is_refused_at_once(
    project: Project,
) -> None:
    write(
        project,
        """
from starlette.middleware.base import BaseHTTPMiddleware

async def pass_on(request, call_next):
    return await call_next(request)

app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)

async def test_it(client, db):
    db.add(User(email="ada"))
    await db.flush()
    await client.get("/users/count")
""",
    )

    result = project.run("-k", "savepoints")

    # Not after a wait for the test's own commit, as between tasks that do not wait for each other.
    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines([f"*{UNCOMMITTED}*", ADVICE])


def test_a_session_that_only_reads_neither_loses_nor_sees_the_others_changes(
    project: Project,
) -> None:
    write(
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

    # What savepoints cannot show must fail and say so.
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines([f"E * {UNCOMMITTED}*", ADVICE])
    result.stdout.fnmatch_lines(["FAILED*test_seen_before_the_commit?savepoints? - Failed: *"])


def test_sessions_of_several_tasks_wait_for_each_others_commit(project: Project) -> None:
    write(
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

async def test_they_read_at_once_and_write_in_turn(get_db_session, db):
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


def test_sessions_that_block_each_other_are_refused(project: Project) -> None:
    project.replace("tests/conftest.py", "PATIENCE = 20", "PATIENCE = 1")
    write(
        project,
        """
async def test_it(get_db_session):
    wrote, read = asyncio.Event(), asyncio.Event()

    async def write():
        async with get_db_session() as session:
            session.add(User(email="ada"))
            await session.flush()
            wrote.set()
            await read.wait()

    async def look():
        await wrote.wait()
        async with get_db_session() as session:
            await session.scalar(sa.select(1))
        read.set()

    await asyncio.gather(write(), look())
""",
    )

    result = project.run()

    result.stdout.fnmatch_lines(
        ["E * Refused: two sessions of this test have blocked each other for 1 s.*", ADVICE]
    )
    result.stdout.fnmatch_lines(["FAILED tests/test_it.py::test_it?savepoints? - Failed: Refused*"])


def test_settings_of_a_transaction_end_with_it(project: Project) -> None:
    write(
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
    write(
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
    write(
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
