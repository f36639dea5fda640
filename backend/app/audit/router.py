"""Endpoints of the audit log."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy import select

from app.audit.schemas import AuditEventOut, AuditQuery
from app.deps import DbSession, require
from app.models import AuditEvent
from app.pagination import Page, fetch_page
from app.roles import Permission

router = APIRouter(
    prefix="/audit",
    tags=["audit"],
    dependencies=[Depends(require(Permission.READ_AUDIT))],
)


@router.get("", response_model=Page[AuditEventOut])
async def list_events(db: DbSession, query: Annotated[AuditQuery, Query()]) -> dict[str, Any]:
    """List changes, newest first."""
    events = select(AuditEvent).filter_by(**query.filters())
    return await fetch_page(db, events, AuditEvent.id, query, newest_first=True)
