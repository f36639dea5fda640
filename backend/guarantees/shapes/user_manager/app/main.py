"""The application of fastapi-users' own example, shortened: its manager makes its own hasher."""

import uuid
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy

from app.db import get_user_db
from app.models import User

SECRET = "a secret of tests, thirty-two bytes or more"


class UserManager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    """What the application does when users come and go."""


async def get_user_manager(user_db: Annotated[object, Depends(get_user_db)]):
    """Give a request the manager."""
    yield UserManager(user_db)


def get_jwt_strategy() -> JWTStrategy:
    """Return how tokens are made."""
    return JWTStrategy(secret=SECRET, lifetime_seconds=3600)


class UserRead(schemas.BaseUser[uuid.UUID]):
    """What others see of a user."""


backend = AuthenticationBackend(
    name="jwt", transport=BearerTransport(tokenUrl="login"), get_strategy=get_jwt_strategy
)
users = FastAPIUsers[User, uuid.UUID](get_user_manager, [backend])
app = FastAPI()
app.include_router(users.get_auth_router(backend), prefix="/auth")
app.include_router(users.get_register_router(UserRead, schemas.BaseUserCreate), prefix="/auth")


@app.get("/me")
async def me(user: Annotated[User, Depends(users.current_user(active=True))]) -> str:
    """Return who asks."""
    return user.email
