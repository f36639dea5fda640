"""An application without users."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import get_db
from app.models import Note

app = FastAPI()
Db = Annotated[AsyncSession, Depends(get_db)]


@app.get("/notes")
async def list_notes(db: Db) -> list[str]:
    """Return all notes."""
    return list(await db.scalars(select(Note.text).order_by(Note.id)))


@app.post("/notes/{text}")
async def create_note(text: str, db: Db) -> int:
    """Create a note and return its number; answer 409 where there is one."""
    note = Note(text=text)
    db.add(note)
    try:
        await db.commit()
    except IntegrityError as error:
        await db.rollback()
        raise HTTPException(409) from error
    await db.refresh(note)
    return note.id
