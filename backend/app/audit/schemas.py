"""What the audit log shows."""

from datetime import datetime
from typing import Any

from app.pagination import PageQuery
from app.schemas import Id, Output


class AuditQuery(PageQuery):
    """Filters of the audit log."""

    actor_id: Id | None = None
    action: str | None = None
    entity: str | None = None
    entity_id: Id | None = None


class AuditEventOut(Output):
    """One change."""

    id: int
    actor_id: int | None
    action: str
    entity: str
    entity_id: int
    data: dict[str, Any]
    created_at: datetime
