"""Endpoints of user administration."""

from typing import Any

from fastapi import APIRouter, Depends, status
from sqlalchemy import select

from app.deps import CurrentUser, DbSession, PageParams, require
from app.models import User
from app.pagination import Page, fetch_page
from app.roles import Permission
from app.schemas import Id
from app.users import service
from app.users.schemas import UserOut, UserPatch

router = APIRouter(
    prefix="/users",
    tags=["users"],
    dependencies=[Depends(require(Permission.MANAGE_USERS))],
)


@router.get("", response_model=Page[UserOut])
async def list_users(db: DbSession, page: PageParams) -> dict[str, Any]:
    """List all accounts, oldest first."""
    return await fetch_page(db, select(User), User.id, page)


@router.get("/{user_id}", response_model=UserOut)
async def get_user(user_id: Id, db: DbSession) -> User:
    """Return one account."""
    return await service.get_user(db, user_id)


@router.patch("/{user_id}", response_model=UserOut)
async def update_user(user_id: Id, patch: UserPatch, actor: CurrentUser, db: DbSession) -> User:
    """Change a user's role or access."""
    user = await service.get_user(db, user_id)
    await service.update_user(db, actor, user, patch)
    await db.commit()
    return user


@router.delete("/{user_id}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_user(user_id: Id, actor: CurrentUser, db: DbSession) -> None:
    """Delete an account."""
    await service.delete_user(db, actor, await service.get_user(db, user_id))
    await db.commit()
