"""300 tests that commit, and are red if they find anything that another test has committed.

They need nothing but a fixture `session`, and read nothing from objects that a commit has expired.
"""

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from benchmark.rivals.neutral.models import Author, Book


@pytest.mark.parametrize("number", range(299))
async def test_a_test_finds_the_rows_that_it_committed_and_no_others(
    session: AsyncSession, number: int
) -> None:
    titles = [f"book {number}.{volume}" for volume in range(3)]
    session.add(Author(name=f"author {number}", books=[Book(title=title) for title in titles]))

    await session.commit()

    assert await session.scalar(select(func.count()).select_from(Book)) == 3
    assert (await session.scalars(select(Author.name))).all() == [f"author {number}"]
    assert (await session.scalars(select(Book.title).order_by(Book.title))).all() == titles


async def test_a_test_goes_on_after_an_integrity_error(session: AsyncSession) -> None:
    session.add(Author(name="first"))
    await session.commit()
    session.add(Author(name="first"))

    with pytest.raises(IntegrityError):
        await session.commit()
    await session.rollback()
    session.add(Author(name="second"))
    await session.commit()

    names = (await session.scalars(select(Author.name).order_by(Author.name))).all()
    assert names == ["first", "second"]
