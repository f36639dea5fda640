"""Builders of rows."""

from itertools import count

from sqlalchemy.ext.asyncio import AsyncSession

from app.models import User

_number = count(1)


async def create_user(db: AsyncSession, *, role: str = "member", email: str | None = None) -> User:
    """Create a user."""
    user = User(email=email or f"{role}{next(_number)}")
    db.add(user)
    await db.commit()
    return user
