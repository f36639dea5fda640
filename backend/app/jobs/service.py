"""The queue: several workers can take from it at once without getting the same job."""

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.service import record
from app.errors import ConflictError, NotFoundError
from app.jobs.schemas import JobIn
from app.models import Job, JobStatus, User
from app.models.operations import MAX_ATTEMPTS


async def enqueue(db: AsyncSession, actor: User, payload: JobIn) -> Job:
    """Add a job to the end of the queue."""
    job = Job(**payload.model_dump())
    db.add(job)
    await db.flush()
    record(db, actor, "enqueue", "job", job.id, kind=job.kind)
    return job


async def claim(db: AsyncSession, actor: User) -> Job | None:
    """Take the oldest queued job that nobody else is taking, if there is one."""
    job = await db.scalar(
        select(Job)
        .where(Job.status == JobStatus.QUEUED)
        .order_by(Job.created_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True),
    )
    if job is None:
        return None
    job.status = JobStatus.RUNNING
    job.attempts += 1
    job.started_at = datetime.now(UTC)
    record(db, actor, "claim", "job", job.id, attempt=job.attempts)
    return job


async def complete(db: AsyncSession, actor: User, job_id: int) -> Job:
    """Report success."""
    job = await _running(db, job_id)
    job.status = JobStatus.DONE
    job.finished_at = datetime.now(UTC)
    record(db, actor, "complete", "job", job.id)
    return job


async def fail(db: AsyncSession, actor: User, job_id: int, error: str) -> Job:
    """Report failure: the job is queued again until its attempts are used up."""
    job = await _running(db, job_id)
    job.last_error = error
    if job.attempts < MAX_ATTEMPTS:
        job.status = JobStatus.QUEUED
        job.started_at = None
    else:
        job.status = JobStatus.FAILED
        job.finished_at = datetime.now(UTC)
    record(db, actor, "fail", "job", job.id, attempt=job.attempts)
    return job


async def _running(db: AsyncSession, job_id: int) -> Job:
    job = await db.scalar(select(Job).where(Job.id == job_id).with_for_update())
    if job is None:
        raise NotFoundError("job not found")
    if job.status is not JobStatus.RUNNING:
        raise ConflictError(f"the job is {job.status.value}, not running")
    return job
