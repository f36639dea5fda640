"""Users, their roles and their refresh tokens."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, ForeignKey, Index, Table, func, true
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import Base

role_permissions = Table(
    "role_permissions",
    Base.metadata,
    Column("role_id", ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
    Column("permission_id", ForeignKey("permissions.id", ondelete="CASCADE"), primary_key=True),
)


class PermissionRow(Base):
    """A permission as the database knows it; the code's list is `app.roles.Permission`."""

    __tablename__ = "permissions"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Role(Base):
    """A named set of permissions."""

    __tablename__ = "roles"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    permissions: Mapped[list[PermissionRow]] = relationship(
        secondary=role_permissions,
        lazy="selectin",
    )


class User(Base):
    """Somebody who can log in."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column()
    full_name: Mapped[str] = mapped_column(server_default="")
    password_hash: Mapped[str]
    is_active: Mapped[bool] = mapped_column(server_default=true())
    role_id: Mapped[int] = mapped_column(ForeignKey("roles.id", ondelete="RESTRICT"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    role: Mapped[Role] = relationship(lazy="joined", innerjoin=True)

    __table_args__ = (Index("uq_users_email_lower", func.lower(email), unique=True),)

    def may(self, permission: str) -> bool:
        """Tell whether the user's role carries `permission`."""
        return any(row.name == permission for row in self.role.permissions)


class RefreshToken(Base):
    """One refresh token, of which only the hash is kept; a login starts a family of them."""

    __tablename__ = "refresh_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    family: Mapped[UUID] = mapped_column(index=True)
    token_hash: Mapped[str] = mapped_column(unique=True)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
