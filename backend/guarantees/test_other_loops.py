"""Promise 13: tests of asynchronous applications on any event loop."""

import pytest

from guarantees.factories import write_tests
from guarantees.project import Project
from guarantees.report import causes, counts, ran_again

CLIENT = """
from contextlib import asynccontextmanager

from fastapi import WebSocket
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.db import SessionLocal

@asynccontextmanager
async def lifespan(_):
    async with SessionLocal() as session:
        session.add(User(email="of the lifespan"))
        await session.commit()
    yield

@app.websocket("/ws")
async def talk(socket: WebSocket) -> None:
    await socket.accept()
    async with SessionLocal() as session:
        while await socket.receive_text() == "add":
            session.add(User(email=f"{await session.scalar(select(func.count(User.id)))}"))
            await session.commit()
            await socket.send_json(await session.scalar(select(func.count()).select_from(User)))

@pytest.fixture
def sync_client(override_get_db):
    app.router.lifespan_context = lifespan
    with TestClient(app) as client:
        yield client
"""


@pytest.mark.parametrize("options", ["", "pool_pre_ping=True", "pool_size=1, max_overflow=0"])
def test_a_test_client_with_lifespan_and_web_sockets(project: Project, options: str) -> None:
    project.app_engine("", options)
    write_tests(
        project,
        CLIENT
        + """
@pytest.mark.parametrize("time", [1, 2])
def test_requests(sync_client, time):
    assert sync_client.post("/users/ada").status_code == 200
    assert sync_client.post("/users/ada").status_code == 409
    assert sync_client.post("/background/grace").status_code == 200
    assert sync_client.get("/users/count").json() == 3

@pytest.mark.parametrize("time", [1, 2])
def test_a_web_socket(sync_client, time):
    with sync_client.websocket_connect("/ws") as socket:
        socket.send_text("add")
        assert socket.receive_json() == 2
        socket.send_text("end")

def test_without_the_lifespan(override_get_db):
    client = TestClient(app)
    assert [client.post(f"/users/{n}").status_code for n in range(3)] == [200] * 3
    assert client.get("/users/count").json() == 3

async def test_in_a_thread_beside_the_tests_own_session(db):
    db.add(User(email="ada"))
    await db.commit()
    client = TestClient(app)
    assert (await asyncio.to_thread(client.get, "/users/count")).json() == 1
    assert (await asyncio.to_thread(client.post, "/users/grace")).status_code == 200
    assert len((await db.scalars(sa.select(User))).all()) == 2

async def test_the_next_one_on_the_loop_of_the_tests(client):
    assert (await client.get("/users/count")).json() == 0
""",
    )

    errors = ("error::pytest.PytestUnraisableExceptionWarning", "error::ResourceWarning")
    result = project.run(*(f"-W{error}" for error in errors))

    result.assert_outcomes(passed=7)
    assert len(ran_again(result)) == 6
    assert counts(result)[1] == 0


def test_a_command_that_runs_a_loop_of_its_own(project: Project) -> None:
    write_tests(
        project,
        """
from app.db import SessionLocal

async def create():
    async with SessionLocal() as session:
        session.add(User(email="root"))
        await session.commit()

def test_1_a_command(override_get_db):
    asyncio.run(create())

def test_2_twice(override_get_db):
    for _ in range(2):
        with pytest.raises(sa.exc.IntegrityError) if _ else pytest.MonkeyPatch.context():
            asyncio.run(create())

async def test_3_in_a_thread(db):
    await asyncio.to_thread(lambda: asyncio.run(create()))
    assert (await db.scalars(sa.select(User.email))).all() == ["root"]

async def test_4_is_clean(client):
    assert (await client.get("/users/count")).json() == 0
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert sorted(ran_again(result)) == ["test_1_a_command", "test_2_twice", "test_3_in_a_thread"]


def test_cases_of_unittest(project: Project) -> None:
    write_tests(
        project,
        """
import unittest

from app.db import SessionLocal

@pytest.mark.usefixtures("override_get_db")
class TestIt(unittest.IsolatedAsyncioTestCase):
    async def create(self):
        async with SessionLocal() as session:
            session.add(User(email="ada"))
            await session.commit()

    async def test_1(self): await self.create()

    async def test_2(self): await self.create()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert counts(result) == (2, 0, 0)


def test_connections_are_kept_where_there_is_one_loop(project: Project) -> None:
    write_tests(
        project,
        """
PIDS = set()

@pytest.mark.fresh_database
@pytest.mark.parametrize("number", range(5))
async def test_it(db, number):
    PIDS.add(await db.scalar(sa.text("SELECT pg_backend_pid()")))
    assert len(PIDS) == 1
""",
    )

    result = project.run()

    result.assert_outcomes(passed=5)
    assert causes(result, "connection ended after the test") == {}


def test_settings_that_ask_for_other_loops_are_overruled(project: Project) -> None:
    settings = ("fixture", "test")
    lines = [f"asyncio_default_{of}_loop_scope = function" for of in settings]
    project.write("pytest.ini", "\n".join(["[pytest]", "asyncio_mode = strict", *lines]))
    write_tests(
        project,
        """
@pytest.fixture
async def loop():
    return asyncio.get_running_loop()

@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, loop, time):
    assert loop is asyncio.get_running_loop()
    assert (await client.post("/users/ada")).status_code == 200
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
