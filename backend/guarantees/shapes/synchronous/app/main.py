from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db import SessionLocal, get_db
from app.models import User


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.started = True
    yield
    app.state.started = False


app = FastAPI(lifespan=lifespan)
Db = Annotated[Session, Depends(get_db)]


@app.get("/users/count")
def count_users(db: Db) -> int:
    return db.scalar(select(func.count()).select_from(User)) or 0


@app.post("/users/{email}")
def create_user(email: str, db: Db) -> str:
    db.add(User(email=email))
    try:
        db.commit()
    except IntegrityError as error:
        raise HTTPException(409) from error
    return email


@app.post("/forgotten/{email}")
def create_without_commit(email: str, db: Db) -> str:
    db.add(User(email=email))
    db.flush()
    return email


def create_in_background(email: str) -> None:
    with SessionLocal() as session:
        session.add(User(email=email))
        session.commit()


@app.post("/background/{email}")
def create_later(email: str, tasks: BackgroundTasks) -> str:
    tasks.add_task(create_in_background, email)
    return email
