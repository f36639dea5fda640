"""Endpoints of the job queue."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response, status
from sqlalchemy import select

from app.deps import CurrentUser, DbSession, require
from app.jobs import service
from app.jobs.schemas import FailureIn, JobIn, JobOut, JobQuery
from app.models import Job
from app.pagination import Page, fetch_page
from app.roles import Permission
from app.schemas import Id

router = APIRouter(
    prefix="/jobs",
    tags=["jobs"],
    dependencies=[Depends(require(Permission.RUN_JOBS))],
)


@router.post("", status_code=status.HTTP_201_CREATED, response_model=JobOut)
async def enqueue(payload: JobIn, user: CurrentUser, db: DbSession) -> Job:
    """Add a job to the queue."""
    job = await service.enqueue(db, user, payload)
    await db.commit()
    return job


@router.get("", response_model=Page[JobOut])
async def list_jobs(db: DbSession, query: Annotated[JobQuery, Query()]) -> dict[str, Any]:
    """List jobs, oldest first."""
    jobs = select(Job).filter_by(**query.filters())
    return await fetch_page(db, jobs, Job.id, query)


@router.post(
    "/claim",
    response_model=JobOut,
    responses={status.HTTP_204_NO_CONTENT: {"description": "The queue is empty"}},
)
async def claim(user: CurrentUser, db: DbSession) -> Job | Response:
    """Take the oldest queued job, or 204 when there is none."""
    job = await service.claim(db, user)
    await db.commit()
    return job or Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/{job_id}/complete", response_model=JobOut)
async def complete(job_id: Id, user: CurrentUser, db: DbSession) -> Job:
    """Report that a running job has succeeded."""
    job = await service.complete(db, user, job_id)
    await db.commit()
    return job


@router.post("/{job_id}/fail", response_model=JobOut)
async def fail(job_id: Id, payload: FailureIn, user: CurrentUser, db: DbSession) -> Job:
    """Report that a running job has failed; it is tried three times."""
    job = await service.fail(db, user, job_id, payload.error)
    await db.commit()
    return job
