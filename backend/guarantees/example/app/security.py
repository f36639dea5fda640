"""Tokens and passwords, reduced to what the conftest touches."""

from pwdlib import PasswordHash

password_hasher = PasswordHash.recommended()


def create_access_token(user_id: int) -> str:
    """Return a user's token."""
    return str(user_id)
