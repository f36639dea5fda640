"""The roles that every database holds."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Role


async def setup_roles(session: AsyncSession) -> None:
    """Create the roles."""
    session.add_all([Role(name="admin"), Role(name="member")])
    await session.commit()
