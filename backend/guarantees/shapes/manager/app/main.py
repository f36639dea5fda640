"""The endpoints."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import DatabaseSessionManager, get_db
from app.models import User


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Own the database while the application runs."""
    app.state.database = DatabaseSessionManager("postgresql+asyncpg://nobody@127.0.0.1:1/x")
    yield
    await app.state.database.engine.dispose()


app = FastAPI(lifespan=lifespan)
Db = Annotated[AsyncSession, Depends(get_db)]


@app.get("/users/count")
async def count_users(db: Db) -> int:
    """Return how many users there are."""
    return await db.scalar(select(func.count()).select_from(User)) or 0


@app.post("/users/{email}")
async def create_user(email: str, db: Db) -> str:
    """Create a user."""
    db.add(User(email=email))
    await db.commit()
    return email
