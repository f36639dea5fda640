"""The endpoints, each a way in which an application uses its database."""

from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import SessionLocal, get_db
from app.models import User

app = FastAPI()
Db = Annotated[AsyncSession, Depends(get_db)]


@app.get("/users/count")
async def count_users(db: Db) -> int:
    """Return how many users there are."""
    return await db.scalar(select(func.count()).select_from(User)) or 0


@app.post("/users/{email}")
async def create_user(email: str, db: Db, desk: int | None = None) -> str:
    """Create a user; answer 409 where the email or, at commit, the desk is taken."""
    db.add(User(email=email, desk=desk))
    try:
        await db.commit()
    except IntegrityError as error:
        await db.rollback()
        raise HTTPException(409, detail=error.orig.sqlstate) from error
    return email


@app.post("/forgotten/{email}")
async def create_without_commit(email: str, db: Db) -> str:
    """Create a user, and forget to commit."""
    db.add(User(email=email))
    await db.flush()
    return email


async def create_in_background(email: str) -> None:
    """Create a user in a session of its own."""
    async with SessionLocal() as session:
        session.add(User(email=email))
        await session.commit()


@app.post("/background/{email}")
async def create_later(email: str, tasks: BackgroundTasks) -> str:
    """Create a user after the response."""
    tasks.add_task(create_in_background, email)
    return email
