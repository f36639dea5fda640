"""Promise 13: synchronous applications, by each driver, and those of both kinds."""

import shutil

import pytest
from sqlalchemy import make_url

from guarantees.project import CONFTEST, HERE, Project
from guarantees.report import causes, counts

DRIVERS = ["psycopg", "psycopg2"]
SEED = """
def add_admin(session):
    session.add(User(email="admin"))


@pytest_asyncio.fixture(scope="session")
async def roles(engine: Engine) -> None:
    await fc.seed_once(engine, add_admin)


"""
IMPORTS = """
import threading
import time

import pytest
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.orm import Session

from app.db import SessionLocal, engine as apps_engine
from app.main import app
from app.models import User

def count(session):
    return session.scalar(select(func.count()).select_from(User))
"""


@pytest.fixture(params=DRIVERS)
def synchronous(project: Project, request: pytest.FixtureRequest) -> Project:
    """A project whose application is synchronous, by one of the drivers."""
    shutil.copytree(HERE / "shapes/synchronous", project.path, dirs_exist_ok=True)
    project.environment["DRIVER"] = request.param
    return project


def write(project: Project, source: str) -> None:
    """Write the project's tests, behind the imports."""
    project.write("tests/test_users.py", IMPORTS + source)


@pytest.mark.parametrize("arguments", [[], ["-n", "2"], ["--real-commits"]])
def test_its_tests_run_with_real_commits_from_the_start(
    synchronous: Project, arguments: list[str]
) -> None:
    result = synchronous.run(*arguments)

    result.assert_outcomes(passed=6)
    assert counts(result) == (6, 0, 0)
    assert "ran again" not in str(result.stdout)


def test_they_do_so_also_by_the_step_of_asynchronous_applications(synchronous: Project) -> None:
    synchronous.replace(CONFTEST, "begin_with_real_commits", "begin_with_savepoint")

    result = synchronous.run()

    result.assert_outcomes(passed=6)
    assert counts(result) == (6, 0, 0)
    assert "ran again" not in str(result.stdout)


def test_a_synchronous_function_seeds_it(synchronous: Project) -> None:
    conftest = synchronous.read(CONFTEST)
    conftest = conftest.replace(
        "db_transaction(engine: Engine)", "db_transaction(engine: Engine, roles)"
    )
    mark = "@pytest_asyncio.fixture\nasync def db_transaction"
    conftest = conftest.replace(mark, f"from app.models import User\n{SEED}{mark}")
    synchronous.write(CONFTEST, conftest)
    write(
        synchronous,
        """
@pytest.mark.parametrize("time", [1, 2])
def test_it(client, db, time):
    client.post("/users/ada")
    assert [user.email for user in db.scalars(select(User).order_by(User.id))] == ["admin", "ada"]
""",
    )

    result = synchronous.run()

    result.assert_outcomes(passed=2)
    assert counts(result) == (2, 0, 0)


def test_sessions_of_every_kind_reach_the_database_of_the_test(synchronous: Project) -> None:
    write(
        synchronous,
        """
def test_it(override_get_db, engine):
    other = create_engine(apps_engine.url)
    with SessionLocal() as one, Session(apps_engine) as two, Session(other) as three:
        names = {each.scalar(text("SELECT current_database()")) for each in (one, two, three)}
        assert len(names) == 1 and "fastapi_conftest" in names.pop()
        one.add(User(email="ada"))
        one.flush()
        assert count(two) == count(three) == 0
        one.commit()
        two.rollback()
        assert count(two) == 1
    assert engine is apps_engine
    other.dispose()

def test_the_next_one(client):
    assert client.get("/users/count").json() == 0
""",
    )

    result = synchronous.run()

    result.assert_outcomes(passed=2)


def test_requests_in_threads_run_at_the_same_time(synchronous: Project) -> None:
    write(
        synchronous,
        """
barrier = threading.Barrier(2)

@app.get("/meet")
def meet() -> int:
    with SessionLocal() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        barrier.wait(5)
        return pid

def test_it(client):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(client.get("/meet").json()))
               for _ in range(2)]
    for each in threads: each.start()
    for each in threads: each.join()
    assert len(set(answers)) == 2
""",
    )

    result = synchronous.run()

    result.assert_outcomes(passed=1)


THREAD = """
def work(seconds):
    with SessionLocal() as session:
        session.add(User(email="of the thread"))
        session.flush()
        {wait}
        session.commit()

def test_1_leaves_it(override_get_db):
    threading.Thread(target=work, args=[{seconds}], name="the worker").start()
    time.sleep(0.1)

@pytest.mark.parametrize("number", range(3))
def test_2_is_clean(client, number):
    assert client.get("/users/count").json() == 0
"""


def test_a_thread_that_a_test_leaves_is_waited_for(synchronous: Project) -> None:
    write(synchronous, THREAD.format(wait="time.sleep(seconds)", seconds=0.5))

    result = synchronous.run()

    result.assert_outcomes(passed=4)
    assert causes(result, "left") == {}


def test_a_thread_that_does_not_end_loses_its_session_and_is_named(synchronous: Project) -> None:
    synchronous.in_folder("real_commits", "PATIENCE = 20", "PATIENCE = 1")
    write(
        synchronous,
        THREAD.format(wait="session.execute(text(f'SELECT pg_sleep({seconds})'))", seconds=30),
    )

    result = synchronous.run("-p", "no:threadexception")

    result.assert_outcomes(passed=4)
    assert [name.split("(")[1].split(",")[0] for name in causes(result, "left")] == ["the worker"]


def test_a_thread_that_goes_on_all_the_same_ends_the_run(synchronous: Project) -> None:
    synchronous.in_folder("real_commits", "PATIENCE = 20", "PATIENCE = 1")
    write(synchronous, THREAD.format(wait="time.sleep(seconds)", seconds=6))

    result = synchronous.run()

    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["errors"]) == (1, 1)
    result.stdout.fnmatch_lines(["*the worker*does not end*The run ends here.*"])


def test_a_lifespan_that_seeds_again_what_is_seeded_costs_no_clone(synchronous: Project) -> None:
    synchronous.replace(
        "app/main.py",
        "    app.state.started = True\n",
        "    app.state.started = True\n"
        "    with SessionLocal() as session:\n"
        "        if not session.scalar(select(User).where(User.email == 'admin')):\n"
        "            session.add(User(email='admin'))\n"
        "        session.commit()\n",
    )
    write(
        synchronous,
        """
@pytest.mark.parametrize("time", [1, 2, 3])
def test_it(client, time):
    assert client.get("/users/count").json() == 1
""",
    )

    result = synchronous.run()

    result.assert_outcomes(passed=3)
    assert counts(result) == (3, 0, 0)


BOTH = """
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

async_engine = create_async_engine(f"postgresql+asyncpg://nobody:secret@127.0.0.1:1/production")
AsyncSessionLocal = async_sessionmaker(async_engine)
"""


def test_a_rollback_does_not_bring_back_what_an_earlier_test_has_set(synchronous: Project) -> None:
    write(
        synchronous,
        """
def test_1_sets_it(db):
    db.execute(text("SET work_mem = '2MB'"))
    db.commit()

def test_2_rolls_back(db):
    db.execute(text("SELECT 1"))
    db.rollback()
    assert db.scalar(text("SHOW work_mem")) == "4MB"
""",
    )

    result = synchronous.run()

    result.assert_outcomes(passed=2)


def test_an_application_of_both_kinds(synchronous: Project) -> None:
    synchronous.write("app/db.py", synchronous.read("app/db.py") + BOTH)
    synchronous.replace(
        CONFTEST, "import Base, SessionLocal", "import AsyncSessionLocal, Base, SessionLocal"
    )
    synchronous.replace(CONFTEST, "[SessionLocal]", "[SessionLocal, AsyncSessionLocal]")
    write(
        synchronous,
        """
from app.db import AsyncSessionLocal

@app.get("/async-count")
async def async_count() -> int:
    async with AsyncSessionLocal() as session:
        return await session.scalar(select(func.count()).select_from(User))

@pytest.mark.parametrize("time", [1, 2])
def test_it(client, time):
    client.post("/users/ada")
    assert client.get("/async-count").json() == 1

@pytest.mark.parametrize("time", [1, 2])
async def test_in_an_asynchronous_test(client, db, time):
    async with AsyncSessionLocal() as session:
        session.add(User(email="ada"))
        await session.commit()
    assert count(db) == 1
""",
    )

    result = synchronous.run()

    result.assert_outcomes(passed=4)
    assert counts(result) == (4, 0, 0)


def test_a_seeding_function_without_a_factory_of_its_kind_is_told(project: Project) -> None:
    project.replace("app/roles.py", "async def setup_roles", "def setup_roles")
    project.replace("app/roles.py", "    await session", "    session")
    project.write("tests/test_it.py", "async def test_it(db): pass")

    result = project.run()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*is synchronous, and no factory in sessions=* makes synchronous*"]
    )


def test_who_waits_for_a_lock_of_the_test_is_told_who_holds_it(synchronous: Project) -> None:
    write(
        synchronous,
        """
def test_it(db):
    db.add(User(email="ada"))
    db.commit()
    db.scalars(select(User).with_for_update()).one()
    with SessionLocal() as other:
        other.scalars(select(User).with_for_update()).one()
""",
    )

    result = synchronous.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Another session of this test holds the lock, such as*"])


@pytest.mark.parametrize("kept", ["kept.append(session)", "session.info['itself'] = session"])
def test_a_session_that_a_thread_has_left_open_is_named_and_the_run_goes_on(
    synchronous: Project, kept: str
) -> None:
    write(
        synchronous,
        f"""
kept = []

def test_1(db):
    def read():
        session = SessionLocal()
        assert count(session) == 0
        {kept}

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()

def test_2(db):
    assert count(db) == 0
""",
    )

    result = synchronous.run()

    result.assert_outcomes(passed=2)
    assert "The run ends here" not in str(result.stdout)


def test_a_thread_that_lives_on_gives_back_what_nobody_uses_any_more(synchronous: Project) -> None:
    write(
        synchronous,
        """
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(1)

def test_1(db):
    def read():
        session = SessionLocal()
        assert count(session) == 0
        session.info["itself"] = session

    pool.submit(read).result()

def test_2(db):
    assert count(db) == 0
""",
    )

    result = synchronous.run()

    result.assert_outcomes(passed=2)
    assert causes(result, "left") == {}


@pytest.mark.parametrize("synchronous", ["psycopg"], indirect=True)
def test_a_url_in_the_words_of_psycopg_serves_an_application_that_uses_it(
    synchronous: Project,
) -> None:
    url = make_url(synchronous.environment["TEST_DATABASE_URL"])
    url = url.update_query_dict({"connect_timeout": "9"})  # which asyncpg does not know
    synchronous.environment["TEST_DATABASE_URL"] = url.render_as_string(hide_password=False)

    result = synchronous.run()

    result.assert_outcomes(passed=6)


def test_a_scoped_session_is_served_by_its_factory(synchronous: Project) -> None:
    app = "SessionLocal = sessionmaker("
    synchronous.replace("app/db.py", app, f"from sqlalchemy.orm import scoped_session\n{app}")
    synchronous.write(
        "app/db.py",
        synchronous.read("app/db.py") + "\n\nScoped = scoped_session(SessionLocal)\n",
    )
    synchronous.replace("tests/conftest.py", "[SessionLocal]", "[Scoped.session_factory]")
    synchronous.replace("tests/conftest.py", "from app.db import", "from app.db import Scoped,")
    write(
        synchronous,
        """
from app.db import Scoped

@pytest.fixture(autouse=True)
def removed(override_get_db):
    yield
    Scoped.remove()

@pytest.mark.parametrize("time", [1, 2])
def test_it(removed, time):
    Scoped.add(User(email="ada"))
    Scoped.commit()
    assert count(Scoped) == 1
""",
    )

    result = synchronous.run()

    result.assert_outcomes(passed=2)
    assert causes(result, "connection ended after the test") == {}


def test_an_end_that_is_interrupted_leaves_nothing(synchronous: Project) -> None:
    write(
        synchronous,
        """
import signal

def give_up(*_):
    pytest.fail("as pytest-timeout does")

def hold():
    with SessionLocal() as session:
        session.execute(text("SELECT 1"))
        time.sleep(4)

def test_1(db):
    db.add(User(email="ada"))
    db.commit()
    threading.Thread(target=hold, daemon=True).start()
    time.sleep(0.2)
    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 0.5)

@pytest.mark.parametrize("number", range(3))
def test_2(db, number):
    assert count(db) == 0
    db.add(User(email="ada"))
    db.commit()
    time.sleep(0.2)
    assert count(db) == 1
""",
    )

    result = synchronous.run()

    result.assert_outcomes(passed=4, errors=1)


def test_what_is_set_on_the_dbapi_connection_reaches_no_other_test(synchronous: Project) -> None:
    write(
        synchronous,
        """
def test_1(override_get_db):
    raw = apps_engine.raw_connection()
    raw.dbapi_connection.autocommit = True
    raw.close()

def test_2(db):
    db.add(User(email="ada"))
    db.flush()
    db.rollback()
    assert count(db) == 0
""",
    )

    result = synchronous.run()

    result.assert_outcomes(passed=2)
