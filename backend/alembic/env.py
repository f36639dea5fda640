"""Run migrations on the application's database, or on a connection that a caller hands over."""

import asyncio
from logging.config import fileConfig

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import app.models  # noqa: F401 - registers every table on Base.metadata
from app.config import get_settings
from app.db import Base


def migrate(connection: Connection | None = None) -> None:
    """Run the migrations on `connection`; without one, print their SQL."""
    context.configure(
        connection=connection,
        url=None if connection else get_settings().database_url,
        target_metadata=Base.metadata,
        compare_type=True,
        compare_server_default=True,
        literal_binds=connection is None,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate_application_database() -> None:
    """Connect as the application does, and migrate."""
    engine = create_async_engine(get_settings().database_url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


handed_over: Connection | None = context.config.attributes.get("connection")
if handed_over is not None:
    migrate(handed_over)
else:
    # Only on the command line: a caller with a connection has its own logging.
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    if context.is_offline_mode():
        migrate()
    else:
        asyncio.run(migrate_application_database())
