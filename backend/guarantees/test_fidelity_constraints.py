"""Promise 3: a commit does with the schema what a COMMIT would, deferred constraints above all."""

import pytest

from guarantees.factories import write_on_both_paths, write_tests
from guarantees.project import Project
from guarantees.report import causes, ran_again


def test_a_deferred_constraint_fails_at_the_apps_commit(project: Project) -> None:
    write_on_both_paths(
        project,
        """
@app.post("/swap")
async def swap_desks(db: Db) -> None:
    ada, grace = (await db.scalars(sa.select(User).order_by(User.email))).all()
    ada.desk = grace.desk
    await db.flush()
    async with db.begin_nested():
        await db.execute(sa.text("SELECT 1"))
    grace.desk = 1
    await db.commit()

@app.post("/collide")
async def take_a_taken_desk(db: Db) -> list[str]:
    db.add(User(email="linus", desk=1))
    await db.flush()
    with pytest.raises(IntegrityError) as failed:
        await db.commit()
    await db.rollback()
    db.add(User(email="alan", desk=3))
    await db.commit()
    return [type(failed.value).__name__, failed.value.orig.sqlstate]

async def test_it(client, db):
    db.add_all([User(email="ada", desk=1), User(email="grace", desk=2)])
    await db.commit()
    assert (await client.post("/swap")).status_code == 200
    assert (await client.post("/collide")).json() == ["IntegrityError", "23505"]
    assert (await client.post("/users/edsger?desk=3")).json() == {"detail": "23505"}
    assert await emails(db) == ["ada", "alan", "grace"]
    db.add(User(email="edsger", desk=3))
    await db.flush()
    with pytest.raises(IntegrityError):
        await db.commit()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_commit_that_fails_leaves_the_next_request_alone(project: Project) -> None:
    write_on_both_paths(
        project,
        """
@app.post("/uncaught")
async def take_a_taken_desk(db: Db) -> None:
    db.add(User(email="lost", desk=1))
    await db.commit()

async def test_it(client, db):
    await client.post("/users/ada?desk=1")
    with pytest.raises(IntegrityError):
        await client.post("/uncaught")
    assert (await client.post("/users/grace")).status_code == 200
    assert await emails(db) == ["ada", "grace"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_deferred_constraint_watches_what_functions_write(project: Project) -> None:
    write_on_both_paths(
        project,
        """
@app.post("/call")
async def call(db: Db) -> None:
    await db.execute(sa.text("SELECT sit('ada'), sit('grace')"))
    await db.commit()

async def test_it(client, db):
    await db.execute(sa.text(
        "CREATE FUNCTION sit(email text) RETURNS void LANGUAGE SQL"
        " AS 'INSERT INTO users (email, desk) VALUES (email, 1)'"
    ))
    await db.commit()
    with pytest.raises(IntegrityError):
        await client.post("/call")
    assert await emails(db) == []
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_each_constraint_keeps_the_time_of_its_check(project: Project) -> None:
    project.replace(
        "app/models.py",
        'initially="DEFERRED"),)',
        'initially="DEFERRED"),\n        UniqueConstraint("shoe", deferrable=True, '
        'initially="IMMEDIATE", name="one_shoe"))\n    shoe: Mapped[int | None]',
    )
    write_on_both_paths(
        project,
        """
@app.post("/shoe/{email}")
async def take_shoe(email: str, db: Db, defer: bool = False) -> str:
    if defer:
        await db.execute(sa.text("SET CONSTRAINTS one_shoe DEFERRED"))
    db.add(User(email=email, shoe=1))
    failed_at = "flush"
    try:
        await db.flush()
        failed_at = "commit"
        await db.commit()
    except IntegrityError:
        await db.rollback()
        return failed_at
    return "never"

async def test_it(client, db):
    for desk in 1, 2:  # each commit runs the check of the deferred constraint
        assert (await client.post(f"/users/ada{desk}?desk={desk}")).status_code == 200
    assert (await client.post("/shoe/ada")).json() == "never"
    assert (await client.post("/shoe/grace")).json() == "flush"
    assert (await client.post("/shoe/grace?defer=true")).json() == "commit"
    assert (await client.post("/shoe/grace")).json() == "flush"
    assert (await client.post("/users/linus?desk=2")).status_code == 409
    assert await emails(db) == ["ada", "ada1", "ada2"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_constraints_of_one_name_of_which_only_one_is_deferrable_mean_real_commits(
    project: Project,
) -> None:
    project.extend_schema(
        "ALTER TABLE roles ADD CONSTRAINT checked CHECK (id > 0);\n"
        "ALTER TABLE users ADD CONSTRAINT checked UNIQUE (email) DEFERRABLE"
    )
    write_on_both_paths(
        project, "async def test_it(client): assert (await client.post('/users/ada')).is_success"
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    cause = "of the constraints public.checked only some are deferrable"
    assert list(causes(result, "real commits for all")) == [cause]


def test_a_constraint_that_a_test_makes_deferrable_is_watched(project: Project) -> None:
    project.replace("app/models.py", ', deferrable=True, initially="DEFERRED"', "")
    write_on_both_paths(
        project,
        """
async def test_it(client, db):
    for change in "DROP CONSTRAINT users_desk_key", "ADD UNIQUE (desk) INITIALLY DEFERRED":
        await db.execute(sa.text(f"ALTER TABLE users {change}"))
    await db.commit()
    assert (await client.post("/users/ada?desk=1")).status_code == 200
    assert (await client.post("/users/grace?desk=1")).status_code == 409
    assert await emails(db) == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


FOREIGN = "CREATE SCHEMA private;\nCREATE TABLE private.t (id int UNIQUE DEFERRABLE)"
NOT_FOR_ALL = "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"


@pytest.mark.parametrize(
    ("schema", "again"),
    [(NOT_FOR_ALL, []), (FOREIGN, ["permission denied for schema private"])],
)
def test_a_role_of_few_privileges_may_commit(
    project: Project, schema: str, again: list[str]
) -> None:
    project.extend_schema(schema)
    write_on_both_paths(
        project,
        """
async def test_it(db):
    await db.execute(sa.text("SET LOCAL ROLE pg_monitor"))
    await db.commit()
    assert await db.scalar(sa.text("SELECT current_user <> 'pg_monitor'"))
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    # An older SQLAlchemy names the class of the error first.
    assert [reason.rpartition(": ")[2] for reason in ran_again(result).values()] == again


def test_a_schema_with_an_event_trigger_gets_real_commits(project: Project) -> None:
    project.extend_schema(
        """
CREATE TABLE log (tag text);
CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql
  AS 'BEGIN INSERT INTO log VALUES (tg_tag); END';
CREATE EVENT TRIGGER noting ON ddl_command_end EXECUTE FUNCTION note()
"""
    )
    write_tests(
        project,
        """
async def test_it(db):
    assert await db.scalar(sa.text("SELECT count(*) FROM log")) == 0
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)
    assert causes(result, "real commits for all") == {"the schema has the event trigger noting": 1}
