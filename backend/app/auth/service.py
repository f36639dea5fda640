"""Accounts and the life of a refresh token."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from secrets import token_urlsafe
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.service import record
from app.auth.schemas import RegisterIn, TokensOut
from app.config import get_settings
from app.errors import InvalidError, UnauthenticatedError
from app.models import RefreshToken, Role, User
from app.roles import RoleName
from app.security import create_access_token, dummy_hash, hash_password, verify_password


async def register(db: AsyncSession, payload: RegisterIn) -> User:
    """Create a user with the role of a member."""
    role = (await db.scalars(select(Role).where(Role.name == RoleName.MEMBER))).one()
    user = User(
        email=payload.email,
        full_name=payload.full_name,
        password_hash=hash_password(payload.password),
        role=role,
    )
    db.add(user)
    await db.flush()
    record(db, user, "register", "user", user.id)
    return user


async def authenticate(db: AsyncSession, email: str, password: str) -> User:
    """Return the active user with these credentials.

    An unknown address costs one verification too, so that timing does not tell who is registered.
    """
    user = await db.scalar(select(User).where(func.lower(User.email) == email.strip().lower()))
    matches = verify_password(password, user.password_hash if user else dummy_hash())
    if user is None or not matches or not user.is_active:
        raise UnauthenticatedError("wrong email or password")
    return user


def issue_tokens(db: AsyncSession, user: User, family: UUID | None = None) -> TokensOut:
    """Return new tokens; without a `family` they begin one."""
    token = token_urlsafe(32)
    lifetime = timedelta(days=get_settings().refresh_token_days)
    db.add(
        RefreshToken(
            user_id=user.id,
            family=family or uuid4(),
            token_hash=_digest(token),
            expires_at=datetime.now(UTC) + lifetime,
        ),
    )
    return TokensOut(access_token=create_access_token(user.id), refresh_token=token)


async def rotate(db: AsyncSession, token: str) -> TokensOut | None:
    """Trade a refresh token for new tokens; a second use revokes all its descendants.

    Whoever comes second, thief or owner, cannot be told apart: both have to log in again.
    """
    # Locked, or two requests at once could both trade the same token.
    known = await db.scalar(
        select(RefreshToken).where(RefreshToken.token_hash == _digest(token)).with_for_update(),
    )
    if known is None:
        return None
    now = datetime.now(UTC)
    if known.revoked_at is not None:
        await _revoke(db, RefreshToken.family == known.family)
        return None
    user = await db.get_one(User, known.user_id)
    if known.expires_at <= now or not user.is_active:
        return None
    known.revoked_at = now
    return issue_tokens(db, user, known.family)


async def revoke_family(db: AsyncSession, token: str) -> None:
    """Log out: the token and its relatives are of no further use."""
    family = select(RefreshToken.family).where(RefreshToken.token_hash == _digest(token))
    await _revoke(db, RefreshToken.family.in_(family))


async def revoke_all(db: AsyncSession, user: User) -> None:
    """Log the user out everywhere, once the access tokens have run out."""
    await _revoke(db, RefreshToken.user_id == user.id)


async def change_password(db: AsyncSession, user: User, current: str, new: str) -> None:
    """Replace the password and log out everywhere."""
    if not verify_password(current, user.password_hash):
        raise InvalidError("the current password is wrong")
    user.password_hash = hash_password(new)
    await revoke_all(db, user)
    record(db, user, "change_password", "user", user.id)


async def _revoke(db: AsyncSession, which: ColumnElement[bool]) -> None:
    await db.execute(
        update(RefreshToken)
        .where(which, RefreshToken.revoked_at.is_(None))
        .values(revoked_at=datetime.now(UTC)),
    )


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()
