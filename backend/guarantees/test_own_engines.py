"""Promise 4: real commits are made by the application's own engines, as they are in production."""

import pytest

from guarantees.factories import write_on_both_paths, write_tests
from guarantees.project import Project
from guarantees.report import causes, counts, ran_again

# An isolation level, however it was set, and by which driver: what the server says reaches the
# transactions of asyncpg since SQLAlchemy 2.0.38 only.
LEVELS = {
    "of the engine": ("asyncpg", "isolation_level='REPEATABLE READ'"),
    "of its options": ("asyncpg", "execution_options={'isolation_level': 'REPEATABLE READ'}"),
    "of the connection": (
        "psycopg",
        r"connect_args={'options': r'-c default_transaction_isolation=repeatable\ read'}",
    ),
    "of the database": ("psycopg", ""),
}
OF_THE_DATABASE = """
DO $$ BEGIN EXECUTE concat('ALTER DATABASE ', current_database(),
  ' SET default_transaction_isolation = ', quote_literal('repeatable read')); END $$
"""


@pytest.mark.parametrize("level", LEVELS)
def test_the_isolation_level_is_that_of_production(project: Project, level: str) -> None:
    driver, options = LEVELS[level]
    project.use_driver(driver)
    project.app_engine("", options)
    if level == "of the database":
        project.extend_schema(OF_THE_DATABASE)
    write_on_both_paths(
        project,
        """
async def test_it(client, db):
    assert await db.scalar(sa.text("SHOW transaction_isolation")) == "repeatable read"
    before = await db.scalar(sa.select(sa.func.count()).select_from(User))
    await client.post("/users/ada")
    assert await db.scalar(sa.select(sa.func.count()).select_from(User)) == before == 0
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert counts(result)[0] == 2


def test_an_engine_in_autocommit_gets_real_commits(project: Project) -> None:
    project.app_engine("", "isolation_level='AUTOCOMMIT'")
    write_tests(
        project,
        """
async def test_it(client):
    await client.post("/forgotten/ada")
    assert (await client.get("/users/count")).json() == 1
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)
    assert list(causes(result, "real commits for all")) == [
        "the application's connections have autocommit 'True'"
    ]


def test_its_pool_has_its_limits(project: Project) -> None:
    project.app_engine("", "pool_size=1, max_overflow=1, pool_timeout=0.2")
    write_tests(
        project,
        """
from app.db import SessionLocal

@pytest.mark.fresh_database
@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, db, db_transaction, time):
    await db_transaction.execute(sa.text("SELECT 1"))
    held = [SessionLocal() for _ in range(3)]
    with pytest.raises(sa.exc.TimeoutError):
        for each in held:
            await each.execute(sa.text("SELECT 1"))
    for each in held:
        await each.close()
    assert (await client.post("/users/ada")).status_code == 200
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_place_in_the_pool_that_nobody_gave_back_is_free_for_the_next_test(
    project: Project,
) -> None:
    project.app_engine("", "pool_size=1, max_overflow=0, pool_timeout=0.2")
    write_tests(
        project,
        """
from app.db import SessionLocal

kept = []

@pytest.mark.fresh_database
@pytest.mark.parametrize("time", range(3))
async def test_it(client, time):
    assert (await client.post("/users/ada")).status_code == 200
    kept.append(SessionLocal())
    await kept[-1].execute(sa.text("SELECT 1"))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=3)
    assert causes(result, "connection ended after the test") == {
        "a connection that was never given back": 3
    }


TWO = """
from sqlalchemy.orm import Session

replica = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/replica", pool_size=1)

class Routing(Session):
    def get_bind(self, *_, clause=None, **__):
        reads = getattr(clause, "is_select", False) and not self._flushing
        return (replica if reads else engine).sync_engine

RoutingSession = async_sessionmaker(sync_session_class=Routing, binds={Session: engine})
"""


def test_two_engines_are_two(project: Project) -> None:
    project.app_engine(TWO)
    project.replace("tests/conftest.py", "sessions=[SessionLocal]", "sessions=[RoutingSession]")
    project.replace("tests/conftest.py", "import Base, SessionLocal", "import *")
    project.replace("tests/conftest.py", "    return SessionLocal\n", "    return RoutingSession\n")
    project.replace(
        "tests/conftest.py", "metadata=Base.metadata", "metadata=Base.metadata, engines=[replica]"
    )
    write_on_both_paths(
        project,
        """
async def test_a_replica_does_not_see_what_is_not_committed(get_db_session):
    async with get_db_session() as session:
        session.add(User(email="ada"))
        await session.flush()
        assert (await session.scalars(sa.select(User.email))).all() == []

async def test_it_sees_what_is(client, get_db_session):
    await client.post("/users/ada")
    async with get_db_session() as session:
        assert (await session.scalars(sa.select(User.email))).all() == ["ada"]
        assert len((await session.scalars(sa.select(Role))).all()) == 2
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert list(ran_again(result)) == [
        "test_a_replica_does_not_see_what_is_not_committed[savepoints]"
    ]


LATE = """
from functools import cache
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from app.db import engine as apps_engine

@cache
def late_engine():
    return create_async_engine(apps_engine.url{options})

@app.get("/late")
async def late() -> int:
    async with late_engine().connect() as connection:
        return await connection.scalar(sa.text("SELECT count(*) FROM users"))

@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, time):
    await client.post("/users/ada")
    assert (await client.get("/late")).json() == 1
"""


@pytest.mark.parametrize("options", ["", ", pool_pre_ping=True", ", pool_recycle=0"])
def test_an_engine_that_is_made_by_the_first_request_is_the_applications(
    project: Project, options: str
) -> None:
    write_on_both_paths(project, LATE.format(options=options))

    result = project.run()

    result.assert_outcomes(passed=4)
    assert len(ran_again(result)) == 2


def test_an_engine_that_is_born_in_the_lifespan_is_the_applications(project: Project) -> None:
    write_on_both_paths(
        project,
        """
from contextlib import asynccontextmanager
from fastapi import Request
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from app.db import engine as apps_engine

@asynccontextmanager
async def lifespan(_):
    own = create_async_engine(apps_engine.url)
    async with own.begin() as connection:
        await connection.execute(sa.text("INSERT INTO users (email) VALUES ('of the lifespan')"))
    yield {"sessions": async_sessionmaker(own)}
    await own.dispose()

app.router.lifespan_context = lifespan

@app.get("/born")
async def born(request: Request) -> int:
    async with request.state.sessions() as session:
        return await session.scalar(sa.text("SELECT count(*) FROM users"))

@pytest.mark.parametrize("time", [1, 2])
def test_it(override_get_db, time):
    from starlette.testclient import TestClient
    with TestClient(app) as client:
        assert client.get("/born").json() == 1
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)


@pytest.mark.parametrize(
    "options", ["", "pool_pre_ping=True", "pool_recycle=0", "poolclass=NullPool"]
)
def test_sessions_go_on_where_the_app_disposes_of_its_pool(project: Project, options: str) -> None:
    project.app_engine("", options)
    project.write("app/db.py", "from sqlalchemy.pool import NullPool\n" + project.read("app/db.py"))
    write_on_both_paths(
        project,
        """
from app.db import engine as apps_engine

@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, db, time):
    db.add(User(email="ada"))
    await db.commit()
    await apps_engine.dispose()
    assert (await client.post("/users/grace")).status_code == 200
    assert await emails(db) == ["ada", "grace"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert ran_again(result) == {}


CREATORS = {
    "asynchronous": (
        "import asyncpg\n"
        "async def connect(): return await asyncpg.connect('postgresql://127.0.0.1:1/cloud')\n"
        "engine = create_async_engine('postgresql+asyncpg://', async_creator=connect)\n"
        "SessionLocal = async_sessionmaker(engine, expire_on_commit=False)"
    ),
    "an argument": (
        "import asyncpg\n"
        "async def connect(**_): return await asyncpg.connect('postgresql://127.0.0.1:1/cloud')\n"
        "engine = create_async_engine('postgresql+asyncpg://nobody@127.0.0.1:1/production',"
        " connect_args={'async_creator_fn': connect})\n"
        "SessionLocal = async_sessionmaker(engine, expire_on_commit=False)"
    ),
    "listener": (
        "@sa.event.listens_for(engine.sync_engine, 'do_connect')\n"
        "def token(dialect, record, args, to): raise RuntimeError('no token')"
    ),
}


@pytest.mark.parametrize("lines", CREATORS.values(), ids=list(CREATORS))
def test_what_connects_by_itself_does_not_get_to_answer(project: Project, lines: str) -> None:
    project.app_engine(lines)
    if "SessionLocal" in lines:
        made = "SessionLocal = async_sessionmaker(engine, expire_on_commit=False)\n\n\nclass"
        project.replace("app/db.py", made, "class")
    write_on_both_paths(
        project,
        """
@pytest.mark.parametrize("time", [1, 2])
async def test_it(client, db, time):
    assert (await client.post("/users/ada")).status_code == 200
    assert await emails(db) == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)
    assert ran_again(result) == {}
