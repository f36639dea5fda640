"""The endpoints."""

import sqlalchemy as sa
from fastapi import FastAPI, HTTPException

from app.db import engine, notes

app = FastAPI()


@app.get("/notes")
async def list_notes() -> list[str]:
    """Return all notes."""
    async with engine.connect() as connection:
        return list(await connection.scalars(sa.select(notes.c.text).order_by(notes.c.id)))


@app.post("/notes/{text}")
async def create_note(text: str) -> int:
    """Create a note and return its number; answer 409 where there is one."""
    insert = sa.insert(notes).values(text=text).returning(notes.c.id)
    try:
        async with engine.begin() as connection:
            return await connection.scalar(insert)
    except sa.exc.IntegrityError as error:
        raise HTTPException(409) from error
