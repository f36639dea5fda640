"""Promise 3: what the test's own session has loaded stays usable when it selects anew."""

from guarantees.factories import write_on_both_paths
from guarantees.project import Project

RELATED = """
from sqlalchemy.orm import joinedload, relationship, selectinload

Role.users = relationship(User, back_populates="role")
User.role = relationship(Role, back_populates="users")
ADMIN = sa.select(Role).where(Role.name == "admin")
"""


def test_relationships_stay_loaded(project: Project) -> None:
    write_on_both_paths(
        project,
        RELATED
        + """
async def test_a_collection(client, db):
    role = await db.scalar(ADMIN.options(selectinload(Role.users)))
    await client.post("/users/ada")
    await db.scalars(sa.select(Role))
    assert role.users == []

async def test_one_that_a_request_has_changed_and_the_test_selects_again(db):
    role = await db.scalar(ADMIN.options(selectinload(Role.users)))
    await db.commit()
    async with SessionLocal() as request:
        request.add(User(email="ada", role_id=role.id))
        await request.commit()
    await db.scalar(ADMIN.options(selectinload(Role.users)))
    assert [user.email for user in role.users] == ["ada"]

async def test_a_reference(client, db):
    role = await db.scalar(ADMIN)
    db.add(user := User(email="grace", role=role))
    await db.commit()
    await client.post("/users/ada")
    found = (await db.scalars(sa.select(User).order_by(User.email))).all()
    assert [each.email for each in found] == ["ada", "grace"]
    assert user.role is role
""",
    )

    result = project.run()

    result.assert_outcomes(passed=6)


def test_rows_with_a_joined_collection_may_be_made_unique_by_the_test(project: Project) -> None:
    write_on_both_paths(
        project,
        RELATED
        + """
async def test_it(client, db):
    await client.post("/users/ada")
    query = sa.select(User, Role).join(Role, isouter=True).options(joinedload(Role.users))
    found = (await db.execute(query)).unique().all()
    assert [(user.email, role) for user, role in found] == [("ada", None)]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_rows_with_a_joined_collection_must_be_made_unique_as_in_production(
    project: Project,
) -> None:
    write_on_both_paths(
        project,
        RELATED
        + """
@pytest.mark.parametrize("entities", [[Role], [Role, User]])
async def test_it(client, db, entities):
    await client.post("/users/ada")
    query = sa.select(*entities).join(User, sa.true()).options(joinedload(Role.users))
    with pytest.raises(sa.exc.InvalidRequestError, match="unique"):
        (await db.execute(query)).all()
""",
    )

    result = project.run()

    result.assert_outcomes(passed=4)


def test_a_collection_that_is_appended_to_before_it_is_loaded_does_no_harm(
    project: Project,
) -> None:
    write_on_both_paths(
        project,
        RELATED
        + """
async def test_it(client, db):
    role = await db.scalar(sa.select(Role))
    await client.post("/users/ada")
    db.add(User(email="grace", role=role))
    found = await db.scalars(sa.select(User.email).order_by(User.email))
    assert found.all() == ["ada", "grace"]
    assert len((await db.scalars(sa.select(User))).all()) == 2
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_query_of_a_hook_before_the_flush_keeps_what_the_test_has_changed(
    project: Project,
) -> None:
    write_on_both_paths(
        project,
        """
async def test_it(client, db):
    @sa.event.listens_for(db.sync_session, "before_flush")
    def audit(session, *_):
        session.scalars(sa.select(User)).all()

    await client.post("/users/ada")
    ada = await db.scalar(sa.select(User))
    ada.email = "lovelace"
    await db.commit()
    assert await emails(db) == ["lovelace"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_query_that_is_not_to_flush_keeps_what_the_test_has_changed(project: Project) -> None:
    write_on_both_paths(
        project,
        """
async def test_it(client, db):
    await client.post("/users/ada")
    ada = await db.scalar(sa.select(User))
    await client.post("/users/grace")
    ada.email = "lovelace"
    await db.scalars(sa.select(User), execution_options={"autoflush": False})
    assert ada.email == "lovelace"
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_a_query_of_a_table_has_the_result_that_sqlalchemy_gives_it(project: Project) -> None:
    write_on_both_paths(
        project,
        """
async def test_it(client, db):
    await client.post("/users/ada")
    found = await db.execute(sa.select(User.__table__.c.email))
    assert isinstance(found, sa.CursorResult)
    assert found.scalars().all() == ["ada"]
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
