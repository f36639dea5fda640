"""Who is asking."""

from typing import Annotated

from fastapi import Depends
from fastapi.security import OAuth2PasswordBearer

from app.db import DbSession
from app.errors import UnauthorizedError
from app.models import User
from app.security import decode_access_token

oauth2_scheme = OAuth2PasswordBearer(tokenUrl="/api/auth/login")


async def get_current_user(
    db: DbSession,
    token: Annotated[str, Depends(oauth2_scheme)],
) -> User:
    """Return the active user that the bearer token names, or answer 401."""
    user_id = decode_access_token(token)
    user = await db.get(User, user_id) if user_id is not None else None
    if user is None or not user.is_active:
        raise UnauthorizedError(detail="invalid or expired token")
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]
