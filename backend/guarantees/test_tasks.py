"""Promise 2: a test ends: no task of it, and no statement, reaches the next one."""

from guarantees.factories import write_on_both_paths
from guarantees.project import Project
from guarantees.report import causes, counts, ran_again

LEAVES = """
from fastapi import BackgroundTasks

async def add(email, before=0.0, after=0.0):
    await asyncio.sleep(before)
    async with SessionLocal() as session:
        session.add(User(email=email))
        await session.flush()
        await asyncio.sleep(after)
        await session.commit()

async def late(): await add("late", before=0.05)
async def in_between(): await add("between", after=0.05)

async def endless():
    while True:
        try:
            await add("endless")
        except Exception:
            await asyncio.sleep(0)

async def slow():
    async with SessionLocal() as session:
        session.add(User(email="slow"))
        await session.flush()
        await session.execute(sa.text("SELECT pg_sleep(30)"))

async def careful():
    try:
        await asyncio.sleep(30)
    finally:
        await add("in its end")

async def of_a_task():
    asyncio.create_task(late())
    await asyncio.sleep(0.01)

kept = []

@app.post("/fire/{name}")
async def fire_and_forget(name: str) -> None:
    kept.append(asyncio.create_task(globals()[name]()))

NAMES = ["late", "in_between", "endless", "slow", "careful", "of_a_task"]
"""
PAIRS = "".join(
    f"""
async def test_{number}_leaves_{name}_{by}(client, db):
    {line}
    await asyncio.sleep({wait})

async def test_{number}_looks_after_{name}_{by}_{wait > 0}(client, db):
    await asyncio.sleep(0.06)
    assert await emails(db) == []
    assert (await client.post("/users/ada")).status_code == 200
    assert await emails(db) == ["ada"]
"""
    for number, (name, wait, by, line) in enumerate(
        (name, wait, by, line.format(name))
        for name in ("late", "in_between", "endless", "slow", "careful", "of_a_task")
        for wait in (0, 0.02)
        for by, line in (
            ("test", "kept.append(asyncio.create_task({0}()))"),
            ("app", 'assert (await client.post("/fire/{0}")).status_code == 200'),
        )
    )
)


def test_a_task_that_is_left_reaches_no_other_test_and_is_named(project: Project) -> None:
    write_on_both_paths(project, LEAVES + PAIRS)

    result = project.run("--durations=3")

    result.assert_outcomes(passed=2 * 2 * 24)
    left = causes(result, "left")
    assert {"late", "in_between", "endless", "slow", "careful", "of_a_task"} <= set(left)
    assert left["slow"] == 8
    assert not [
        line for line in result.outlines if "s call" in line and float(line.partition("s ")[0]) > 9
    ]


def test_a_task_that_does_not_end_is_told(project: Project) -> None:
    project.in_folder("sessions", "PATIENCE = 20", "PATIENCE = 1")
    write_on_both_paths(
        project,
        """
async def stubborn():
    for _ in range(30):
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            pass

async def test_1_leaves_it(db):
    global task
    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0.01)

async def test_2_starts_empty(client, db):
    assert await emails(db) == []
    assert (await client.post("/users/ada")).status_code == 200
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines(
        ["E * Refused: a task that the test has left does not end within 1 s.*"]
    )


def test_tasks_that_are_awaited_or_older_than_the_test_go_on(project: Project) -> None:
    write_on_both_paths(
        project,
        """
ticks = []

@pytest.fixture(scope="session", autouse=True)
async def clock():
    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0.001)
    task = asyncio.create_task(tick())
    yield
    task.cancel()

@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, db, time):
    before = len(ticks)
    async with asyncio.TaskGroup() as group:
        group.create_task(client.post("/users/ada"))
        group.create_task(client.get("/users/count"))
    assert await emails(db) == ["ada"]
    await asyncio.sleep(0.01)
    assert len(ticks) > before
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert causes(result, "left") == {}


COMMITS = """
async def commits(number):
    async with SessionLocal() as session:
        session.add(User(email=f"commit {number}"))
        await session.commit()
"""


def test_cancelled_at_any_moment_the_others_go_on(project: Project) -> None:
    write_on_both_paths(
        project,
        COMMITS
        + """
async def rolls_back(number):
    async with SessionLocal() as session:
        session.add(User(email="lost"))
        await session.flush()
        await session.rollback()

async def nests(number):
    async with SessionLocal() as session:
        async with session.begin_nested():
            session.add(User(email=f"nested {number}"))
        await session.commit()

async def fails(number):
    async with SessionLocal() as session:
        session.add_all([User(email="joan"), User(email="joan")])
        await session.commit()

@pytest.mark.parametrize("work", [commits, rolls_back, nests, fails])
async def test_it(client, db, work):
    for number in range(40):
        task = asyncio.create_task(work(number))
        if number % 2:  # so many steps of the loop, or so long
            for _ in range(number):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(number / 10000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        before = len(await emails(db))
        assert (await client.post(f"/users/ada{number}")).status_code == 200
        found = await emails(db)
        assert len(found) == before + 1
        assert "lost" not in found and "joan" not in found
""",
    )

    result = project.run()

    result.assert_outcomes(passed=8)
    assert ran_again(result) == {}


def test_a_commit_that_is_cancelled_is_not_cut_in_two(project: Project) -> None:
    write_on_both_paths(
        project,
        COMMITS
        + """
import asyncpg

@pytest.mark.parametrize("step", range(10))
async def test_it(client, db, step, monkeypatch):
    execute, done = asyncpg.Connection.execute, []

    async def cancel_at_a_step(connection, script):
        for statement in script.split("; "):
            await execute(connection, statement)
            done.append(statement)
            if len(done) == step:
                task.cancel()
            await asyncio.sleep(0)

    monkeypatch.setattr(asyncpg.Connection, "execute", cancel_at_a_step)
    task = asyncio.create_task(commits(step))
    await asyncio.gather(task, return_exceptions=True)
    before = await emails(db)
    assert (await client.post("/users/ada")).status_code == 200
    assert await emails(db) == ["ada", *before]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=20)
    assert ran_again(result) == {}


def test_two_that_write_at_once_are_right_or_run_again(project: Project) -> None:
    write_on_both_paths(
        project,
        """
@app.post("/slowly/{email}")
async def create_slowly(email: str, db: Db) -> None:
    db.add(User(email=email))
    await db.flush()
    await asyncio.sleep(0.01)
    await db.commit()

async def test_writers(client, db):
    await asyncio.gather(*(client.post(f"/slowly/{name}") for name in ("ada", "grace", "joan")))
    assert await emails(db) == ["ada", "grace", "joan"]

async def test_streams(client, db):
    db.add_all([User(email="ada"), User(email="grace")])
    await db.commit()

    async def read():
        async with SessionLocal() as session:
            return [each async for each in await session.stream_scalars(sa.select(User.email))]

    read_by_each = await asyncio.gather(read(), read(), client.post("/users/joan"))
    assert all({"ada", "grace"} <= {*each} for each in read_by_each[:2])
    assert await emails(db) == ["ada", "grace", "joan"]

async def test_statements_of_two_sessions_at_once(db):
    async def sleep():
        async with SessionLocal() as session:
            await session.execute(sa.text("SELECT pg_sleep(0.05)"))
    await asyncio.gather(*(sleep() for _ in range(5)))

async def test_the_next_test_starts_empty(db):
    assert await emails(db) == []
""",
    )

    result = project.run()

    result.assert_outcomes(passed=8)
    assert "another operation is in progress" not in str(result.stdout)
    assert "test_statements_of_two_sessions_at_once[savepoints]" not in ran_again(result)
    assert counts(result)[2] == 0


def test_what_a_refusal_has_interrupted_is_not_named(project: Project) -> None:
    project.write(
        "tests/test_it.py",
        """
import asyncio

async def test_it(client):
    answers = await asyncio.gather(*(client.post("/users/ada") for _ in range(4)))
    assert sorted(each.status_code for each in answers) == [200, 409, 409, 409]
""",
    )

    result = project.run()

    assert list(ran_again(result)) == ["test_it"]
    assert causes(result, "left") == {}
