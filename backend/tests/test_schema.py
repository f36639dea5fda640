"""What the database itself promises, and that the migrations promise the same as the models."""

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Base
from app.models import Project, Task, Team
from tests.factories import create_project, create_task, create_team

ALEMBIC = Path(__file__).parent.parent / "alembic.ini"


def migrate_and_compare(connection: Connection) -> list[object]:
    """Replace the schema by what the migrations make, and return where the models differ."""
    Base.metadata.drop_all(connection)
    config = Config(ALEMBIC)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True}
    )
    return list(compare_metadata(context, Base.metadata))


@pytest.mark.fresh_database
async def test_the_migrations_make_the_schema_of_the_models(db: AsyncSession) -> None:
    connection = await db.connection()

    differences = await connection.run_sync(migrate_and_compare)

    assert differences == []


async def test_a_violation_leaves_the_session_usable_after_a_rollback(db: AsyncSession) -> None:
    await create_team(db, slug="night")
    db.add(Team(name="Again", slug="night"))

    with pytest.raises(IntegrityError, match="uq_teams_slug"):
        await db.commit()
    await db.rollback()

    await create_team(db, slug="day")
    assert await db.scalar(select(func.count()).select_from(Team)) == 2


async def test_two_tasks_may_share_a_position_until_the_commit(db: AsyncSession) -> None:
    first = await create_task(db)
    second = await create_task(db, project=first.project)
    first.position, second.position = 2, 1

    await db.flush()
    await db.commit()

    order = await db.scalars(select(Task.id).order_by(Task.position))
    assert order.all() == [second.id, first.id]


async def test_two_tasks_do_not_share_a_position_after_the_commit(db: AsyncSession) -> None:
    first = await create_task(db)
    second = await create_task(db, project=first.project)
    second.position = 1
    await db.flush()

    with pytest.raises(IntegrityError, match="uq_tasks_project_id_position"):
        await db.commit()


async def test_a_position_begins_at_one(db: AsyncSession) -> None:
    task = await create_task(db)
    task.position = 0

    with pytest.raises(IntegrityError, match="ck_tasks_position_from_one"):
        await db.flush()


async def test_a_team_is_not_deleted_under_its_projects(db: AsyncSession) -> None:
    project = await create_project(db)
    team = await db.get_one(Team, project.team_id)
    await db.delete(team)

    with pytest.raises(IntegrityError, match="fk_projects_team_id_teams"):
        await db.flush()


async def test_what_a_savepoint_undoes_leaves_the_rest(db: AsyncSession) -> None:
    team = await create_team(db)
    db.add(Project(team_id=team.id, key="ONE", name="One"))
    await db.flush()

    savepoint = await db.begin_nested()
    db.add(Project(team_id=team.id, key="ONE", name="Twin"))
    with pytest.raises(IntegrityError):
        await db.flush()
    await savepoint.rollback()
    await db.commit()

    assert (await db.scalars(select(Project.name))).all() == ["One"]
