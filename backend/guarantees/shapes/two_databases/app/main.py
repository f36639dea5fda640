"""The endpoints."""

from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from app import audit
from app.db import get_db
from app.models import Note

app = FastAPI()


@app.post("/notes/{text}")
async def create_note(text: str, db: Annotated[AsyncSession, Depends(get_db)]) -> int:
    """Create a note, and note that down in the other database."""
    note = Note(text=text)
    db.add(note)
    await db.commit()
    await audit.note_down(f"created {text}")
    return note.id
