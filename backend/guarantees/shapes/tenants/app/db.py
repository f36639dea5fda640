"""Row-level security: what a transaction may see is said when it begins."""

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Annotated

from fastapi import Header
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session

engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/production")
tenant: ContextVar[str] = ContextVar("tenant")
ROLE = "pg_monitor"  # stands for a role of the app's own, to which no policy is blind


class TenantSession(Session):
    """A session whose transactions see the rows of one tenant."""


SessionLocal = async_sessionmaker(
    engine, expire_on_commit=False, sync_session_class=TenantSession
)


@event.listens_for(TenantSession, "after_begin")
def see_one_tenant(session, transaction, connection):
    """Say whose rows this transaction may see."""
    if name := tenant.get(None):
        connection.execute(text(f"SET LOCAL ROLE {ROLE}"))
        connection.execute(text("SELECT set_config('app.tenant', :name, true)"), {"name": name})


class Base(DeclarativeBase):
    """The base of all models."""


async def get_db(x_tenant: Annotated[str, Header()]) -> AsyncIterator[AsyncSession]:
    """Give a request the session of its tenant."""
    tenant.set(x_tenant)
    async with SessionLocal() as session:
        yield session
