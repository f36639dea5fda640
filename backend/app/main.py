"""The application: `uvicorn app.main:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, HTTPException, status
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.audit.router import router as audit
from app.auth.router import router as auth
from app.comments.router import router as comments
from app.db import SessionLocal, engine
from app.deps import DbSession
from app.error_handlers import add_exception_handlers
from app.jobs.router import router as jobs
from app.labels.router import router as labels
from app.limits import BodySizeLimit
from app.projects.router import router as projects
from app.roles import setup_roles
from app.tasks.router import router as tasks
from app.teams.router import router as teams
from app.users.router import router as users


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Bring the roles up to date at start-up; close the connections at shutdown."""
    async with SessionLocal() as session:
        await setup_roles(session)
    yield
    await engine.dispose()


app = FastAPI(title="Projects", version="1.0.0", lifespan=lifespan)
app.add_middleware(BodySizeLimit)
add_exception_handlers(app)

api = APIRouter(prefix="/api")
for router in (auth, users, teams, projects, labels, tasks, comments, audit, jobs):
    api.include_router(router)
app.include_router(api)


@app.get("/health", tags=["health"])
async def health(db: DbSession) -> dict[str, str]:
    """Tell whether the application can reach its database."""
    try:
        await db.execute(text("SELECT 1"))
    except (OSError, SQLAlchemyError) as error:
        raise HTTPException(
            status.HTTP_503_SERVICE_UNAVAILABLE,
            detail="the database cannot be reached",
        ) from error
    return {"status": "ok"}
