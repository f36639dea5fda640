"""The endpoints."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.db import get_session
from app.models import User

app = FastAPI()
Db = Annotated[AsyncSession, Depends(get_session)]


@app.get("/users")
async def list_users(db: Db) -> list[User]:
    """Return all users."""
    return list((await db.exec(select(User).order_by(User.email))).all())


@app.post("/users")
async def create_user(user: User, db: Db) -> User:
    """Create a user; answer 409 where the email is taken."""
    db.add(user)
    try:
        await db.commit()
    except IntegrityError as error:
        await db.rollback()
        raise HTTPException(409) from error
    return user
