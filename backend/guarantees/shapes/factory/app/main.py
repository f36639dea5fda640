"""An application factory with settings; nothing exists before it is called."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from app.models import User


@dataclass
class Settings:
    """What differs from one installation to the next."""

    database_url: str = "postgresql+asyncpg://nobody@127.0.0.1:1/production"
    greeting: str = "Welcome"


router = APIRouter()


async def get_db(request: Request):
    """Give a request its session."""
    async with request.app.state.sessions() as session:
        yield session


@router.post("/users/{email}")
async def create_user(
    email: str, request: Request, db: Annotated[AsyncSession, Depends(get_db)]
) -> str:
    """Create a user and greet them."""
    db.add(User(email=email))
    await db.commit()
    return f"{request.app.state.settings.greeting}, {email}"


@router.get("/users/count")
async def count_users(db: Annotated[AsyncSession, Depends(get_db)]) -> int:
    """Return how many users there are."""
    return await db.scalar(select(func.count()).select_from(User)) or 0


def create_app(settings: Settings) -> FastAPI:
    """Return a new application."""
    app = FastAPI()
    app.state.settings = settings
    app.state.sessions = async_sessionmaker(create_async_engine(settings.database_url))
    app.include_router(router)
    return app
