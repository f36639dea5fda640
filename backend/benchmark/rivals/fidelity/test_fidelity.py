"""What production does, by its first line; a way of isolating tests under which one fails misleads.

The tests need nothing but a fixture `sessions`: the application's session factory, on a clean
database. The second of a pair looks for what the first has left.
"""

import asyncio

import pytest
from sqlalchemy import UniqueConstraint, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Mapped, mapped_column

from benchmark.rivals.neutral.models import Author, Base

Sessions = async_sessionmaker[AsyncSession]
COUNT = select(func.count()).select_from(Author)


class Seat(Base):
    """A seat; no two authors may have the same one when a transaction ends."""

    __tablename__ = "seat"
    __table_args__ = (UniqueConstraint("number", deferrable=True, initially="DEFERRED"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


async def write(session: AsyncSession, *names: str) -> None:
    """Write authors, without a commit."""
    session.add_all([Author(name=name) for name in names])
    await session.flush()


async def test_a_session_does_not_see_what_another_has_only_flushed(sessions: Sessions) -> None:
    """Other sessions do not see what is flushed but not committed."""
    async with sessions() as one, sessions() as other:
        await write(one, "ada")

        seen = await other.scalar(COUNT)

    assert seen == 0


async def test_a_rollback_keeps_what_another_session_has_committed(sessions: Sessions) -> None:
    """A rollback keeps what another session has committed."""
    async with sessions() as one, sessions() as other:
        await write(one, "ada")
        await write(other, "joan")
        await other.commit()

        await one.rollback()

        assert (await other.scalars(select(Author.name))).all() == ["joan"]


async def test_a_deferred_constraint_fails_at_commit(sessions: Sessions) -> None:
    """A deferred constraint fails at COMMIT."""
    async with sessions() as session:
        session.add_all([Seat(number=1), Seat(number=1)])
        await session.flush()

        with pytest.raises(IntegrityError):
            await session.commit()


async def test_two_sessions_write_at_the_same_time(sessions: Sessions) -> None:
    """Two sessions can write at the same time."""

    async def add(name: str) -> None:
        async with sessions() as session:
            await write(session, name)
            await session.commit()

    await asyncio.gather(add("ada"), add("joan"))

    async with sessions() as session:
        assert await session.scalar(COUNT) == 2


async def test_a_locked_row_is_skipped(sessions: Sessions) -> None:
    """SKIP LOCKED skips a row that another session has locked."""
    async with sessions() as one, sessions() as other:
        await write(one, "ada")
        await one.commit()
        job = select(Author.name).with_for_update(skip_locked=True)
        await one.scalars(job)

        taken = (await other.scalars(job)).all()

    assert taken == []


async def test_set_local_ends_with_its_transaction(sessions: Sessions) -> None:
    """SET LOCAL ends with its transaction."""
    async with sessions() as session:
        await session.execute(text("SET LOCAL statement_timeout = '7s'"))
        await session.commit()

        setting = await session.scalar(text("SHOW statement_timeout"))

    assert setting == "0"


async def test_a_lost_connection_harms_only_its_own_session(sessions: Sessions) -> None:
    """A lost connection breaks only its own session."""
    async with sessions() as one, sessions() as other:
        await write(one, "ada")
        await one.commit()
        with pytest.raises(DBAPIError):
            await other.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

        assert await one.scalar(COUNT) == 1


async def test_a_cancelled_query_harms_only_its_own_session(sessions: Sessions) -> None:
    """A cancelled query breaks only its own session."""
    async with sessions() as one, sessions() as other:
        await write(one, "ada")
        await one.commit()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(other.execute(text("SELECT pg_sleep(5)")), 0.1)

        assert await one.scalar(COUNT) == 1


async def test_a_commit_as_text_commits_1(sessions: Sessions) -> None:
    """A raw COMMIT commits, and the next test starts clean."""
    async with sessions() as session:
        await write(session, "ada")

        await session.execute(text("COMMIT"))


async def test_a_commit_as_text_commits_2(sessions: Sessions) -> None:
    async with sessions() as session:
        assert await session.scalar(COUNT) == 0


async def test_ids_begin_at_1_in_an_empty_table_1(sessions: Sessions) -> None:
    """Ids begin at 1 in every test."""
    async with sessions() as session:
        await write(session, "ada")
        await session.commit()

        assert (await session.scalars(select(Author.id))).all() == [1]


async def test_ids_begin_at_1_in_an_empty_table_2(sessions: Sessions) -> None:
    async with sessions() as session:
        await write(session, "joan")
        await session.commit()

        assert (await session.scalars(select(Author.id))).all() == [1]


async def test_now_is_later_in_the_next_transaction(sessions: Sessions) -> None:
    """now() advances from one transaction to the next."""
    async with sessions() as session:
        first = (await session.scalars(select(func.now()))).one()
        await session.commit()

        second = (await session.scalars(select(func.now()))).one()

    assert second > first
