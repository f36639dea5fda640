"""Two session factories on one database: the usual one, and one for reports."""

from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/production")
SessionLocal = async_sessionmaker(engine, expire_on_commit=False)
ReportSession = async_sessionmaker(engine, autoflush=False)


class Base(DeclarativeBase):
    """The base of all models."""


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give a request its session; commit when it succeeds, else roll back."""
    async with SessionLocal() as session, session.begin():
        yield session


async def get_report_db() -> AsyncIterator[AsyncSession]:
    """Give a report its session."""
    async with ReportSession() as session:
        yield session
