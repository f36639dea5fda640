"""Password hashes and access tokens."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

import jwt
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app.config import get_settings

ALGORITHM = "HS256"
ISSUER = "projects-api"
AUDIENCE = "projects-api-clients"

password_hasher = PasswordHash((Argon2Hasher(),))


def hash_password(password: str) -> str:
    """Return a salted hash of `password`."""
    return password_hasher.hash(password)


def verify_password(password: str, password_hash: str) -> bool:
    """Tell whether `password` gives `password_hash`."""
    return password_hasher.verify(password, password_hash)


def dummy_hash() -> str:
    """Return a hash no password gives, to spend on an unknown user the time a known one takes."""
    return _dummy_hash_of(password_hasher)


@lru_cache(maxsize=1)
def _dummy_hash_of(hasher: PasswordHash) -> str:
    return hasher.hash("nobody has this password")


def create_access_token(user_id: int) -> str:
    """Return a signed token that names `user_id` for a few minutes."""
    settings = get_settings()
    now = datetime.now(UTC)
    claims = {
        "sub": str(user_id),
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + timedelta(minutes=settings.access_token_minutes),
    }
    return jwt.encode(claims, settings.secret_key.get_secret_value(), algorithm=ALGORITHM)


def decode_access_token(token: str) -> int | None:
    """Return the user id in `token`, or None when any part of it cannot be trusted."""
    try:
        claims = jwt.decode(
            token,
            get_settings().secret_key.get_secret_value(),
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            audience=AUDIENCE,
            options={"require": ["sub", "iss", "aud", "iat", "exp"]},
        )
        return int(claims["sub"])
    except (jwt.InvalidTokenError, ValueError):
        return None
