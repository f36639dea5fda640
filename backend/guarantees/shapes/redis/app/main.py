"""The endpoints."""

from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.cache import Cache, get_cache
from app.db import get_db
from app.models import Note

app = FastAPI()
Db = Annotated[AsyncSession, Depends(get_db)]


@app.post("/notes/{text}")
async def create_note(text: str, db: Db) -> str:
    """Create a note."""
    db.add(Note(text=text))
    await db.commit()
    return text


@app.get("/notes/count")
async def count_notes(db: Db, cache: Annotated[Cache, Depends(get_cache)]) -> int:
    """Return how many notes there are, or were when somebody first asked."""
    if (cached := await cache.get("notes")) is None:
        cached = str(await db.scalar(select(func.count()).select_from(Note)))
        await cache.set("notes", cached)
    return int(cached)
