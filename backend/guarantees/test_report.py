"""Promise 10: one line of the header says which server and schema the tests run on."""

import re
import secrets

from guarantees.conftest import Project

LINE = (
    r"database: PostgreSQL \d+\.\d+ at \S+, schema (\w+)"
    r"(, \d+ left-over databases dropped)?, ready in \d+ ms"
)


def test_the_header_tells_a_new_schema_from_a_known_one(project: Project) -> None:
    comment = f'__table_args__ = {{"comment": "{secrets.token_hex(8)}"}}'
    project.replace(
        "app/models.py", '__tablename__ = "roles"', f'__tablename__ = "roles"\n    {comment}'
    )
    project.write("tests/test_it.py", "async def test_it(db): pass")

    first, second = project.run(), project.run()

    states = [
        [match[1] for line in result.outlines if (match := re.fullmatch(LINE, line))]
        for result in (first, second)
    ]
    assert states == [["built"], ["cached"]]
