"""Builders of rows."""

from itertools import count

from sqlalchemy.ext.asyncio import AsyncSession

from app.main import UserManager
from app.models import User

_number = count(1)


async def create_user(db: AsyncSession, *, role: str = "member") -> User:
    """Create a user whose password is "password"."""
    email = f"{role}{next(_number)}@example.com"
    user = User(email=email, hashed_password=UserManager(None).password_helper.hash("password"))
    db.add(user)
    await db.commit()
    return user
