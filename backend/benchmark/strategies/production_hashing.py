"""On any other: passwords are hashed at the cost that production pays."""

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app import security

security.password_hasher = PasswordHash((Argon2Hasher(),))
