"""Alembic's async template, which uses the connection that it is handed, if any."""

import asyncio

from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

from app.models import Base


def do_run_migrations(connection):
    """Run on this connection."""
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


async def run_async_migrations():
    """Run on an engine of their own."""
    engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/production")
    async with engine.connect() as connection:
        await connection.run_sync(do_run_migrations)


if (handed := context.config.attributes.get("connection")) is not None:
    do_run_migrations(handed)
else:
    asyncio.run(run_async_migrations())
