"""Promise 3: a request has a task and a context of its own, as under a server."""

from guarantees.factories import write_on_both_paths
from guarantees.project import Project
from guarantees.report import ran_again


def test_a_request_inherits_no_context_and_leaves_none(project: Project) -> None:
    write_on_both_paths(
        project,
        """
from contextvars import ContextVar

who = ContextVar("who", default=None)

@app.get("/who")
async def read(name: str | None = None) -> str | None:
    before = who.get()
    who.set(name or before)
    return before

async def test_it(client):
    who.set("the test")
    await client.get("/who?name=ada")
    assert (await client.get("/who")).json() is None
    assert who.get() == "the test"
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_session_that_is_scoped_by_the_task_is_one_for_each_request(project: Project) -> None:
    write_on_both_paths(
        project,
        """
from sqlalchemy.ext.asyncio import async_scoped_session

scoped = async_scoped_session(SessionLocal, scopefunc=asyncio.current_task)

@app.post("/scoped")
async def flush_only() -> None:
    scoped.add(User(email="ada"))
    await scoped.flush()

@app.get("/scoped")
async def count() -> int:
    return await scoped.scalar(sa.select(sa.func.count()).select_from(User))

async def test_a_forgotten_commit_is_forgotten(client):
    await client.post("/scoped")
    assert (await client.get("/scoped")).json() == 0
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert list(ran_again(result)) == ["test_a_forgotten_commit_is_forgotten[savepoints]"]


def test_a_request_that_is_given_up_ends(project: Project) -> None:
    write_on_both_paths(
        project,
        """
ended = []

@app.get("/endless")
async def endless() -> None:
    try:
        await asyncio.sleep(30)
    finally:
        ended.append(True)

async def test_it(client):
    ended.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.get("/endless"), 0.05)
    assert ended == [True]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_what_serves_has_the_attributes_of_the_application(project: Project) -> None:
    write_on_both_paths(
        project,
        """
import fastapi_conftest as fc

async def test_it(app):
    app.state.motd = "hello"
    assert fc.as_served(app).state.motd == "hello"
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
