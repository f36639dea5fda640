"""Writing the audit log."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.models import AuditEvent, User


def record(
    db: AsyncSession,
    actor: User | None,
    action: str,
    entity: str,
    entity_id: int,
    **data: object,
) -> None:
    """Log a change in the transaction that makes it: both are kept, or neither."""
    db.add(
        AuditEvent(
            actor_id=actor.id if actor is not None else None,
            action=action,
            entity=entity,
            entity_id=entity_id,
            data=data,
        ),
    )
