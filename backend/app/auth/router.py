"""Endpoints of sign-up and login."""

from typing import Annotated

from fastapi import APIRouter, Depends, status
from fastapi.security import OAuth2PasswordRequestForm

from app.auth import service
from app.auth.schemas import PasswordIn, RegisterIn, TokenIn, TokensOut
from app.deps import CurrentUser, DbSession
from app.errors import UnauthenticatedError
from app.models import User
from app.users.schemas import UserOut

router = APIRouter(prefix="/auth", tags=["auth"])


@router.post("/register", status_code=status.HTTP_201_CREATED, response_model=UserOut)
async def register(payload: RegisterIn, db: DbSession) -> User:
    """Create an account."""
    user = await service.register(db, payload)
    await db.commit()
    return user


@router.post("/login")
async def login(form: Annotated[OAuth2PasswordRequestForm, Depends()], db: DbSession) -> TokensOut:
    """Trade email and password for tokens."""
    user = await service.authenticate(db, form.username, form.password)
    tokens = service.issue_tokens(db, user)
    await db.commit()
    return tokens


@router.post("/refresh")
async def refresh(payload: TokenIn, db: DbSession) -> TokensOut:
    """Trade a refresh token for new tokens; each works once."""
    tokens = await service.rotate(db, payload.refresh_token)
    # Before the refusal as well: what it revoked has to stay revoked.
    await db.commit()
    if tokens is None:
        raise UnauthenticatedError("invalid or expired refresh token")
    return tokens


@router.post("/logout", status_code=status.HTTP_204_NO_CONTENT)
async def logout(payload: TokenIn, db: DbSession) -> None:
    """Give up a refresh token; an unknown one is no error."""
    await service.revoke_family(db, payload.refresh_token)
    await db.commit()


@router.get("/me", response_model=UserOut)
async def me(user: CurrentUser) -> User:
    """Return the caller's own account."""
    return user


@router.post("/password", status_code=status.HTTP_204_NO_CONTENT)
async def change_password(payload: PasswordIn, user: CurrentUser, db: DbSession) -> None:
    """Change the password and revoke every refresh token."""
    await service.change_password(db, user, payload.current_password, payload.new_password)
    await db.commit()
