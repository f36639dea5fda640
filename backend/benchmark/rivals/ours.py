"""Our conftest, as it is at this moment, in a project of the neutral models.

What stands between its ADAPT 1/4 and "Nothing below" is left out, and its actors, for a project
without users; what this file defines takes their place, as docs/adopting.md describes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmark.rivals.neutral.models import Base

CONFTEST = Path(__file__).parents[2] / "tests" / "conftest.py"

application = FastAPI()
SESSION_FACTORIES = [async_sessionmaker()]
METADATA = Base.metadata
SCHEMA_FILES = [CONFTEST]  # which takes itself for this file
make_engine = create_async_engine
DRIVER = "postgresql+asyncpg"
User = Any


def create_schema(connection: sa.Connection) -> None:
    """Create everything that a new, empty database needs."""
    METADATA.create_all(connection)


def authenticate(_: User) -> dict[str, str]:
    """Return no headers: there are no users."""
    return {}


async def setup_roles(_: AsyncSession) -> None:
    """Do nothing: there are no roles."""


def conftest_without_project() -> str:
    """Return the conftest's text without what is the project's own."""
    imports, adapt = CONFTEST.read_text(encoding="utf-8").split("# ADAPT 1/4")
    _, rest = adapt.split("# Nothing below this line needs editing.\n")
    ours, _ = rest.split("# --- actors: yours to replace")
    return imports + ours


exec(compile(conftest_without_project(), CONFTEST, "exec"))  # noqa: S102 - never a stale copy


@pytest.fixture
def session(db: AsyncSession) -> AsyncSession:
    """Its own session, as it is."""
    return db
