"""Promise 2: what a test overrides or redirects in the application ends with it."""

from guarantees.factories import write_tests
from guarantees.project import Project


def test_overrides_of_dependencies_are_gone(project: Project) -> None:
    write_tests(
        project,
        """
from app.db import get_db

class Broken:
    async def scalar(self, statement): return 99

async def test_1_overrides(app, client):
    app.dependency_overrides[get_db] = Broken
    assert (await client.get("/users/count")).json() == 99

async def test_2_finds_no_override(client):
    assert (await client.get("/users/count")).json() == 0
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_overrides_end_with_whatever_test_makes_them(project: Project) -> None:
    project.write(
        "app/overridden.py",
        """
from app.main import app

def original(): pass
def of_the_suite(): pass

app.dependency_overrides[original] = of_the_suite
""",
    )
    write_tests(
        project,
        """
from app.overridden import of_the_suite, original

def test_1_asks_for_no_fixture():
    app.dependency_overrides["sync"] = 1

async def test_2_asks_for_db_only(db):
    app.dependency_overrides["async"] = 1

def test_3_removes_the_suites_own():
    app.dependency_overrides.clear()

def test_4_replaces_it():
    app.dependency_overrides[original] = print
    raise RuntimeError("the test's own")

def test_5_rebinds_the_dictionary():
    app.dependency_overrides = {}

@pytest.mark.fresh_database
async def test_6_on_the_other_path(db):
    app.dependency_overrides["real"] = 1

def test_7_finds_the_suites_own_alone():
    assert app.dependency_overrides == {original: of_the_suite}
""",
    )

    result = project.run()

    result.assert_outcomes(passed=6, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_4_replaces_it - RuntimeError: the test's own"])


def test_factories_are_as_the_app_made_them_outside_a_test(project: Project) -> None:
    project.replace(
        "app/db.py",
        "async_sessionmaker(engine, expire_on_commit=False)",
        "async_sessionmaker(engine, expire_on_commit=False, info={'of': 'the app'})",
    )
    write_tests(
        project,
        """
from app.db import SessionLocal, engine as apps_engine

own, options = apps_engine.sync_engine, dict(SessionLocal.kw)

def test_0_outside():
    assert apps_engine.sync_engine is own and SessionLocal.kw == options

async def test_1_inside(db):
    assert apps_engine.sync_engine is not own
    raise RuntimeError("the test's own")

@pytest.mark.fresh_database
async def test_2_inside(db):
    assert apps_engine.sync_engine is own

def test_3_outside():
    assert apps_engine.sync_engine is own and SessionLocal.kw == options
    assert apps_engine.url.database == "production"
""",
    )

    result = project.run()

    result.assert_outcomes(passed=3, failed=1)


def test_overrides_of_mounted_applications_are_gone_and_so_is_their_state(project: Project) -> None:
    write_tests(
        project,
        """
from fastapi import Depends, FastAPI, HTTPException

async def current_user():
    raise HTTPException(401)

inner, innermost = FastAPI(), FastAPI()
app.mount("/inner", inner)
inner.mount("/most", innermost)
app.state.kept, inner.state.number = ["as it was"], 1
for each in (inner, innermost):
    each.add_api_route("/me", lambda user=Depends(current_user): user)

async def test_1_logged_in(client):
    inner.dependency_overrides[current_user] = lambda: "ada"
    innermost.dependency_overrides = {current_user: lambda: "ada"}
    assert (await client.get("/inner/me")).json() == "ada"
    assert (await client.get("/inner/most/me")).json() == "ada"
    app.state.added, inner.state.number = True, 2
    del app.state.kept

@pytest.mark.parametrize("path", ["/inner/me", "/inner/most/me"])
async def test_2_logged_out(client, path):
    assert (await client.get(path)).status_code == 401
    assert app.state.kept == ["as it was"] and inner.state.number == 1
    assert not hasattr(app.state, "added")
""",
    )

    result = project.run()

    result.assert_outcomes(passed=3)


def test_overrides_of_applications_in_middleware_and_routers_are_gone(project: Project) -> None:
    write_tests(
        project,
        """
from fastapi import APIRouter, FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Router
from starlette.testclient import TestClient

inner, deep, routed = FastAPI(), FastAPI(), FastAPI()
app.mount("/inner", GZipMiddleware(inner))
app.mount("/router", Router(routes=[Mount("/deep", app=deep)]))
router = APIRouter()
router.mount("/routed", routed)
app.include_router(router)
paths = {"/inner": inner, "/router/deep": deep, "/routed": routed}
# An older FastAPI leaves out what is mounted in a router that it includes.
served = [it for path, it in paths.items() if TestClient(app).get(f"{path}/docs").is_success]

@pytest.mark.parametrize("time", [1, 2])
def test_it(time):
    assert len(served) >= 2
    for each in served:
        assert each.dependency_overrides == {}
        each.dependency_overrides[print] = list
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
