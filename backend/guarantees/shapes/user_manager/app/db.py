"""The database layer of fastapi-users' own example."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from fastapi_users.db import SQLAlchemyUserDatabase
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/production")
async_session_maker = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """The base of all models."""


async def get_async_session() -> AsyncIterator[AsyncSession]:
    """Give a request its session."""
    async with async_session_maker() as session:
        yield session


async def get_user_db(session: Annotated[AsyncSession, Depends(get_async_session)]):
    """Give a request the adapter."""
    from app.models import User

    yield SQLAlchemyUserDatabase(session, User)
