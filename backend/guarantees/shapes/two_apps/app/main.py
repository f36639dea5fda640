"""The public application and that of the administrators."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import get_db, get_report_db
from app.models import User

app = FastAPI()
admin_app = FastAPI()


@app.post("/users/{email}", status_code=201)
async def create_user(
    email: str, db: Annotated[AsyncSession, Depends(get_db)], *, fail: bool = False
) -> str:
    """Create a user; get_db commits, or rolls back where this fails."""
    db.add(User(email=email))
    await db.flush()
    if fail:
        raise HTTPException(418)
    return email


@admin_app.get("/report")
async def report(db: Annotated[AsyncSession, Depends(get_report_db)]) -> int:
    """Return how many users there are."""
    return await db.scalar(select(func.count()).select_from(User)) or 0
