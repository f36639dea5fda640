"""What the database itself promises, and that the migrations promise the same as the models."""

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Base
from app.models import Project, Task, Team
from tests.factories import create_project, create_task, create_team

ALEMBIC = Path(__file__).parent.parent / "alembic.ini"


# Alembic's own comparison does not see enum values, check constraints, what is deferrable,
# or the predicate of an index; the catalog has them all.
CATALOG = text("""
    SELECT concat_ws(' ', c.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod),
                     a.attnotnull, a.attgenerated, pg_get_expr(d.adbin, d.adrelid))
    FROM pg_class AS c
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
    LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT concat_ws(' ', enumtypid::regtype, enumsortorder, enumlabel) FROM pg_enum
""")


def migrations(connection: Connection) -> Config:
    """Drop every table, and return the configuration for migrations on this connection."""
    Base.metadata.drop_all(connection)
    config = Config(ALEMBIC)
    config.attributes["connection"] = connection
    return config


def schemas(connection: Connection) -> tuple[set[str], set[str]]:
    """Return what the migrations make of an empty database, and what the models make of it."""
    command.upgrade(migrations(connection), "head")
    connection.execute(text("DROP TABLE alembic_version"))
    migrated = set(connection.scalars(CATALOG))
    Base.metadata.drop_all(connection)
    Base.metadata.create_all(connection)
    return migrated, set(connection.scalars(CATALOG))


@pytest.mark.fresh_database
async def test_the_migrations_make_the_schema_of_the_models(db: AsyncSession) -> None:
    connection = await db.connection()

    migrated, modelled = await connection.run_sync(schemas)

    assert migrated == modelled


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
