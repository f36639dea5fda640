"""Promise 2: outside a test the engines serve nobody but the seeding of the roles."""

import pytest

from guarantees.project import CONFTEST, Project
from guarantees.report import counts
from guarantees.servers import Database

HEADER = """
import pytest
import pytest_asyncio
import sqlalchemy as sa

from app.db import SessionLocal, engine as apps_engine
from app.models import Role, User

INSERT = "INSERT INTO users (email) VALUES ('early')"

async def by_engine(engine):
    async with engine.begin() as connection:
        await connection.execute(sa.text(INSERT))

async def by_apps_engine(engine):
    async with apps_engine.begin() as connection:
        await connection.execute(sa.text(INSERT))

async def by_session(engine):
    async with SessionLocal() as session:
        session.add(User(email="early"))
        await session.commit()

async def by_reading(engine):
    async with SessionLocal() as session:
        await session.scalar(sa.select(User.email))

async def look(db, client):
    assert (await db.scalars(sa.select(User.email))).all() == []
    assert (await db.scalars(sa.select(Role.name).order_by(Role.name))).all() == ["admin", "member"]
    assert (await client.post("/users/ada")).status_code == 200
"""
OUTSIDE = "Refused: a statement outside the transaction of a test."
NO_SERVER = "postgresql+asyncpg://nobody@127.0.0.1:1/nowhere"
WAYS = "engine", "apps_engine", "session", "reading"


@pytest.mark.parametrize("scope", ["session", "package", "module", "class"])
def test_a_fixture_of_a_wider_scope_is_refused_with_advice(project: Project, scope: str) -> None:
    for before in 0, 1:  # whether a test of the database has run before
        for way in WAYS:
            project.write(
                f"tests/test_{before}_{way}.py",
                HEADER
                + f"""
@pytest_asyncio.fixture(scope="{scope}")
async def early(engine):
    await by_{way}(engine)

@pytest.mark.skipif(not {before}, reason="the fixture comes first")
async def test_0_before(db): await db.scalar(sa.select(User.id))

class TestIt:
    async def test_1_refused(self, early, db): pass

    @pytest.mark.fresh_database
    async def test_2_refused_too(self, early, db): pass

async def test_3_starts_empty(db, client): await look(db, client)

@pytest.mark.fresh_database
async def test_4_starts_empty_too(db, client): await look(db, client)
""",
            )

    result = project.run()

    result.assert_outcomes(passed=4 + 16, skipped=4, errors=16)
    refusals = [line for line in result.outlines if line.startswith("E ") and "Refused: " in line]
    assert len(refusals) == 16
    assert all("where nothing would undo changes" in line for line in refusals)
    named = f"It comes from the {scope} fixture 'early' in tests.test_"
    assert str(result.stdout).count(named) == 16
    assert counts(result)[1] == 0


def test_a_session_of_an_earlier_test_is_refused(project: Project, database: Database) -> None:
    project.write(
        "tests/test_it.py",
        HEADER
        + """
kept = {}

async def test_1_keeps(db, get_db_session, engine):
    kept["session"] = get_db_session()
    kept["session"].add(User(email="early"))
    await kept["session"].commit()
    await kept["session"].execute(sa.text("SELECT 1"))
    kept["connection"] = await engine.connect()
    await kept["connection"].execute(sa.text("SELECT 1"))
    await db.execute(sa.text("SELECT 1"))

async def test_1_without_a_database():
    await kept["session"].execute(sa.text("SELECT 1"))

@pytest.mark.parametrize("name", ["session", "connection"])
async def test_2_uses(db, name):
    await kept[name].execute(sa.text(INSERT))

async def test_3_commits(db, client):
    await kept["session"].commit()
    await look(db, client)
""",
    )

    result = project.run("--refusals-fail")

    bad = [
        line.split("::")[1].split(" - ")[0] for line in result.outlines if line.startswith("FAILED")
    ]
    uses = ["test_2_uses[session]", "test_2_uses[connection]"]
    assert [each for each in bad if "test_3" not in each] == ["test_1_without_a_database", *uses]
    refused = [line for line in result.outlines if line.startswith("E ") and OUTSIDE in line]
    assert len(refused) == len(bad)


@pytest.mark.parametrize("arguments", [(), ("-n", "2")])
def test_a_unit_test_needs_no_server(project: Project, arguments: tuple[str, ...]) -> None:
    project.environment["TEST_DATABASE_URL"] = NO_SERVER
    project.write("tests/test_it.py", "def test_unit(): pass\nasync def test_async(): pass\n")

    result = project.run(*arguments)

    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.OK


@pytest.mark.parametrize("arguments", [(), ("-n", "2")])
def test_no_test_needs_no_server_either(project: Project, arguments: tuple[str, ...]) -> None:
    project.environment["TEST_DATABASE_URL"] = NO_SERVER
    project.write("tests/test_it.py", "async def test_it(db): pass\n")

    result = project.run("-k", "another", *arguments)

    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.parametrize("scope", ["module", "session"])
def test_a_wider_fixture_that_asks_for_one_of_a_test_is_told_what_to_write(
    project: Project, scope: str
) -> None:
    project.write(
        "tests/test_it.py",
        HEADER
        + f"""
@pytest.fixture(scope="{scope}")
def headers(client):
    return dict(client.headers)

def test_it(headers): pass
""",
    )

    result = project.run()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ScopeMismatch*", "*Leave out its scope=*"])


def test_a_wider_transaction_of_a_test_is_refused(project: Project) -> None:
    source = project.read(CONFTEST)
    for name in "db_transaction", "override_get_db":
        fixture = f"@pytest_asyncio.fixture\nasync def {name}"
        source = source.replace(fixture, fixture.replace("fixture", 'fixture(scope="module")', 1))
    project.write(CONFTEST, source)
    project.write(
        "tests/test_it.py",
        HEADER
        + """
async def test_1(db): pass

@pytest.mark.fresh_database
async def test_2(db): pass
""",
    )

    result = project.run()

    result.assert_outcomes(errors=2)
    said = "It comes from the module fixture 'db_transaction' in tests.conftest, which lives longer"
    assert said in str(result.stdout)


@pytest.mark.parametrize("option", ["--fixtures", "--fixtures-per-test", "--collect-only"])
def test_looking_at_the_fixtures_needs_no_server(project: Project, option: str) -> None:
    project.environment["TEST_DATABASE_URL"] = NO_SERVER
    project.write("tests/test_it.py", "async def test_it(db): pass\n")

    result = project.run(option)

    assert result.ret == pytest.ExitCode.OK
