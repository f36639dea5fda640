"""The job queue."""

import asyncio

import pytest
from httpx import AsyncClient
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.models import Job, JobStatus
from tests.factories import create_job, wait_for_a_blocked_query


async def test_a_job_waits_in_the_queue(admin_client: AsyncClient) -> None:
    response = await admin_client.post(
        "/api/jobs", json={"kind": "report", "payload": {"month": 1}}
    )

    body = response.json()
    assert response.status_code == 201
    assert (body["status"], body["attempts"], body["payload"]) == ("queued", 0, {"month": 1})


async def test_the_oldest_job_is_claimed_first(admin_client: AsyncClient, db: AsyncSession) -> None:
    oldest = await create_job(db)
    await create_job(db)

    response = await admin_client.post("/api/jobs/claim")

    body = response.json()
    assert (body["id"], body["status"], body["attempts"]) == (oldest.id, "running", 1)


async def test_an_empty_queue_has_nothing_to_claim(admin_client: AsyncClient) -> None:
    response = await admin_client.post("/api/jobs/claim")

    assert response.status_code == 204


async def test_a_job_that_runs_can_be_completed(
    admin_client: AsyncClient, db: AsyncSession
) -> None:
    job = await create_job(db, status=JobStatus.RUNNING, attempts=1)

    response = await admin_client.post(f"/api/jobs/{job.id}/complete")

    assert response.status_code == 200
    assert response.json()["status"] == "done"


async def test_a_job_that_waits_cannot_be_completed(
    admin_client: AsyncClient, db: AsyncSession
) -> None:
    job = await create_job(db)

    response = await admin_client.post(f"/api/jobs/{job.id}/complete")

    assert response.status_code == 409
    assert response.json() == {"detail": "the job is queued, not running"}


@pytest.mark.parametrize(("attempts", "status"), [(1, "queued"), (3, "failed")])
async def test_a_failed_job_is_tried_three_times(
    admin_client: AsyncClient, db: AsyncSession, attempts: int, status: str
) -> None:
    job = await create_job(db, status=JobStatus.RUNNING, attempts=attempts)

    response = await admin_client.post(f"/api/jobs/{job.id}/fail", json={"error": "no paper"})

    body = response.json()
    assert (body["status"], body["last_error"]) == (status, "no paper")


@pytest.mark.fresh_database
async def test_workers_that_claim_at_once_get_a_job_each(
    admin_client: AsyncClient, db: AsyncSession
) -> None:
    jobs = [await create_job(db) for _ in range(5)]

    responses = await asyncio.gather(*(admin_client.post("/api/jobs/claim") for _ in range(5)))

    claimed = [response.json()["id"] for response in responses if response.status_code == 200]
    assert sorted(claimed) == sorted(job.id for job in jobs)


@pytest.mark.fresh_database
async def test_a_job_that_another_transaction_holds_is_skipped(
    admin_client: AsyncClient, db: AsyncSession
) -> None:
    held, free = await create_job(db), await create_job(db)
    await db.execute(select(Job.id).where(Job.id == held.id).with_for_update())

    async with asyncio.timeout(10):  # instead of waiting for ever where nothing is skipped
        response = await admin_client.post("/api/jobs/claim")

    assert response.json()["id"] == free.id


@pytest.mark.fresh_database
async def test_a_job_that_ends_meanwhile_is_not_completed_again(
    admin_client: AsyncClient, db: AsyncSession, get_db_session: async_sessionmaker[AsyncSession]
) -> None:
    job = await create_job(db, status=JobStatus.RUNNING)
    await db.execute(update(Job).where(Job.id == job.id).values(status=JobStatus.DONE))

    completion = asyncio.create_task(admin_client.post(f"/api/jobs/{job.id}/complete"))
    async with get_db_session() as other:
        await wait_for_a_blocked_query(other)
    await db.commit()

    response = await completion
    assert response.status_code == 409
    assert response.json() == {"detail": "the job is done, not running"}
