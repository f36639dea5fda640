from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.db import SyncSessionLocal, get_db, get_sync_db
from app.models import User

app = FastAPI()


@app.post("/users/{email}")
async def create_user(email: str, db: Annotated[AsyncSession, Depends(get_db)]) -> str:
    db.add(User(email=email))
    await db.commit()
    return email


@app.get("/users/count")
def count_users(db: Annotated[Session, Depends(get_sync_db)]) -> int:
    return db.scalar(select(func.count()).select_from(User)) or 0


def command(email: str) -> None:
    """Create a user, as a command on a console does."""
    with SyncSessionLocal() as session:
        session.add(User(email=email))
        session.commit()
