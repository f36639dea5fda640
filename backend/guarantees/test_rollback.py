"""Promise 2: whatever a test does to its database is gone for the next test."""

from guarantees.conftest import Database, Project


def test_what_a_test_commits_is_gone_for_the_next(project: Project, database: Database) -> None:
    project.write(
        "tests/test_it.py",
        """
import pytest

@pytest.mark.parametrize("time", [1, 2])
async def test_starts_empty(client, db, time):
    await client.post("/users/ada")
    assert (await client.get("/users/count")).json() == 1
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2)
    assert database.leftovers() == []
