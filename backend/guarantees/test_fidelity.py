"""Promise 3: the app cannot tell that its transactions are savepoints; see _nesting as well."""

import pytest

from guarantees.factories import write_on_both_paths
from guarantees.project import Project


def test_work_goes_on_after_an_integrity_error(project: Project) -> None:
    write_on_both_paths(
        project,
        """
@app.post("/retry")
async def create_another_if_taken(db: Db) -> None:
    db.add(User(email="kept"))
    await db.commit()
    db.add_all([User(email="lost"), User(email="ada")])
    with pytest.raises(IntegrityError):
        await db.commit()
    await db.rollback()
    db.add(User(email="second"))
    await db.commit()

async def test_it(client, db):
    db.add(User(email="ada"))
    await db.commit()
    assert (await client.post("/retry")).status_code == 200
    assert (await client.post("/users/second")).json() == {"detail": "23505"}
    assert (await client.post("/users/third")).status_code == 200
    assert await emails(db) == ["ada", "kept", "second", "third"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_begin_nested_undoes_its_own_part_only(project: Project) -> None:
    write_on_both_paths(
        project,
        """
@app.post("/nested/{end}")
async def create_nested(end: str, db: Db) -> None:
    db.add(User(email="outer"))
    with pytest.raises(IntegrityError):
        async with db.begin_nested():
            db.add_all([User(email="lost"), User(email="ada")])
    async with db.begin_nested():
        db.add(User(email="inner"))
    await getattr(db, end)()

async def test_it(client, db):
    assert (await client.post("/users/ada")).status_code == 200
    await client.post("/nested/rollback")
    assert await emails(db) == ["ada"]
    await client.post("/nested/commit")
    assert await emails(db) == ["ada", "inner", "outer"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_request_keeps_exactly_what_it_committed(project: Project) -> None:
    write_on_both_paths(
        project,
        """
@app.post("/back-and-forth")
async def roll_back_in_the_middle(db: Db) -> None:
    for email, end in ("first", db.commit), ("second", db.rollback), ("third", db.commit):
        db.add(User(email=email))
        await db.flush()
        await end()

@app.post("/broken")
async def fail_after_a_flush(db: Db) -> None:
    db.add(User(email="committed"))
    await db.commit()
    db.add(User(email="flushed"))
    await db.flush()
    raise RuntimeError("after the flush")

async def test_a_rollback_in_the_middle(client, db):
    await client.post("/back-and-forth")
    assert await emails(db) == ["first", "third"]

async def test_an_exception_after_a_flush(client, db):
    with pytest.raises(RuntimeError, match="after the flush"):
        await client.post("/broken")
    assert (await client.post("/users/next")).status_code == 200
    assert await emails(db) == ["committed", "next"]

async def test_a_forgotten_commit(client, db):
    assert (await client.post("/forgotten/ada")).status_code == 200
    assert (await client.get("/users/count")).json() == 0
    assert await emails(db) == []
""",
    )

    result = project.run()

    result.assert_outcomes(passed=6)


def test_hooks_run_at_the_apps_own_commits_and_rollbacks(project: Project) -> None:
    write_on_both_paths(
        project,
        """
hooks = []
for name in "before_commit", "after_commit", "after_rollback":  # at import, as an application does
    sa.event.listen(Session, name, lambda _, name=name: hooks.append(name))

async def test_it(client):
    hooks.clear()
    assert (await client.post("/users/ada")).status_code == 200
    assert (await client.post("/users/ada")).status_code == 409
    assert hooks == ["before_commit", "after_commit", "before_commit", "after_rollback"]
    hooks.clear()
    await client.post("/users/grace?desk=1")
    assert (await client.post("/users/linus?desk=1")).status_code == 409
    assert hooks == ["before_commit", "after_commit", "before_commit", "after_rollback"]
    hooks.clear()
    assert (await client.post("/forgotten/alan")).status_code == 200
    assert hooks == []
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(("expire", "outcome"), [("False", "'ada'"), ("True", "MissingGreenlet")])
def test_sessions_are_the_apps_own_with_its_options(
    project: Project, expire: str, outcome: str
) -> None:
    project.replace(
        "app/db.py",
        "SessionLocal = async_sessionmaker(engine, expire_on_commit=False)",
        "class OwnSession(AsyncSession):\n    pass\n"
        f"SessionLocal = async_sessionmaker(engine, class_=OwnSession, expire_on_commit={expire},\n"
        "    autoflush=False, info={'of': 'the app'})",
    )
    write_on_both_paths(
        project,
        f"""
from app.db import OwnSession

@app.post("/read-after-commit")
async def read_after_commit(db: Db) -> list[str]:
    db.add(user := User(email="ada"))
    assert await db.scalar(sa.select(User)) is None  # no autoflush
    await db.commit()
    try:
        email = repr(user.email)
    except Exception as error:
        email = type(error).__name__
    return [type(db).__name__, db.info["of"], email]

async def test_it(client, db):
    answer = (await client.post("/read-after-commit")).json()
    assert answer == ["OwnSession", "the app", "{outcome.replace('"', "")}"]
    assert isinstance(db, OwnSession)
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_request_cancelled_in_mid_query_loses_its_own_work_only(project: Project) -> None:
    write_on_both_paths(
        project,
        """
@app.post("/slow")
async def write_slowly(db: Db) -> None:
    db.add(User(email="committed"))
    await db.commit()
    db.add(User(email="flushed"))
    await db.flush()
    await db.execute(sa.text("SELECT pg_sleep(30)"))

async def test_it(client, db):
    db.add(User(email="arranged"))
    await db.commit()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.post("/slow"), 0.2)
    assert (await client.post("/users/next")).status_code == 200
    assert await emails(db) == ["arranged", "committed", "next"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_streams_background_tasks_and_gathered_requests_work(project: Project) -> None:
    write_on_both_paths(
        project,
        """
@app.get("/stream")
async def stream(db: Db) -> StreamingResponse:
    async def lines():
        async for email in await db.stream_scalars(sa.select(User.email).order_by(User.email)):
            yield email + " "
        async with SessionLocal() as own:
            yield str(await own.scalar(sa.select(sa.func.count()).select_from(User)))
    return StreamingResponse(lines())

async def test_a_streaming_response(client, db):
    db.add_all([User(email="ada"), User(email="grace")])
    await db.commit()
    assert (await client.get("/stream")).text == "ada grace 2"
    assert (await client.post("/users/next")).status_code == 200

async def test_a_background_task_with_a_session_of_its_own(client, db):
    await client.post("/background/ada")
    assert (await client.get("/users/count")).json() == 1
    assert await emails(db) == ["ada"]

async def test_gathered_requests(client, client_factory, db):
    names = ["ada", "ada", "grace", "linus", "alan"]
    posts = [client_factory(None).post(f"/users/{name}") for name in names]
    answers = await asyncio.gather(*posts, client.get("/users/count"))
    assert sorted(each.status_code for each in answers) == [200] * 5 + [409]
    assert await emails(db) == ["ada", "alan", "grace", "linus"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=6)


def test_get_db_commits_and_rolls_back_as_the_app_wrote_it(project: Project) -> None:
    project.replace(
        "app/db.py",
        "        yield session\n",
        "        try:\n            yield session\n            await session.commit()\n"
        "        except Exception:\n            await session.rollback()\n"
        "            print('rolled back by get_db')\n            raise\n",
    )
    write_on_both_paths(
        project,
        """
@app.post("/failing")
async def fail(db: Db) -> None:
    db.add(User(email="lost"))
    await db.flush()
    raise RuntimeError("after the flush")

async def test_it(client, db, capsys):
    await client.post("/forgotten/ada")
    assert await emails(db) == ["ada"]
    with pytest.raises(RuntimeError, match="after the flush"):
        await client.post("/failing")
    assert capsys.readouterr().out == "rolled back by get_db\\n"
    assert await emails(db) == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_what_db_has_loaded_stays_until_another_commits(project: Project) -> None:
    write_on_both_paths(
        project,
        """
EMAIL = sa.select(User).order_by(User.id)

async def test_by_a_session_of_the_app(client, db):
    db.add(user := User(email="ada"))
    await db.commit()
    await db.execute(sa.text("UPDATE users SET email = 'grace'"))
    await db.commit()
    assert (await db.scalars(EMAIL)).first() is user
    assert user.email == "ada"  # as in production
    assert (await client.post("/users/joan")).status_code == 200
    assert (await db.scalars(EMAIL)).first() is user
    assert user.email == "grace"

@pytest.mark.fresh_database
async def test_by_an_engine_of_the_test(db, fresh_database_url):
    db.add(user := User(email="ada"))
    await db.commit()
    engine = sa.ext.asyncio.create_async_engine(fresh_database_url)
    async with engine.begin() as connection:
        await connection.execute(sa.text("UPDATE users SET email = 'grace'"))
    await engine.dispose()
    assert (await db.scalars(EMAIL)).first() is user
    assert user.email == "grace"
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)


def test_sessions_go_on_where_the_app_disposes_of_its_pool(project: Project) -> None:
    write_on_both_paths(
        project,
        """
from app.db import engine as apps_engine

async def test_it(client, db):
    db.add(User(email="ada"))
    await db.commit()
    await apps_engine.dispose()
    assert (await client.post("/users/grace")).status_code == 200
    assert await emails(db) == ["ada", "grace"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert "need real commits" not in str(result.stdout)
