"""Which statements may make settings, of a transaction or of a session.

The savepoint undoes the settings of a transaction; those of a session outlast it, which one shared
connection cannot show. A statement may make settings by itself, or by a routine of the schema whose
body does, or calls one that does. A false alarm costs no more than a second run.
"""

import re
from collections.abc import Callable
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

# At the beginning of a statement, which a comment may precede.
SETS = r"(\A|\*/|;|--[^\n]*\n)\s*((RE)?SET|DO)\b|\bset_\w+\s*\("
# What of it lasts for a transaction only.
LOCAL = r"\bSET\s+(LOCAL|TRANSACTION|CONSTRAINTS)\b|\bset_config\s*\([^()]*,\s*true\s*\)"
OF_SESSION = r"\b(RE)?SET\s|\bset_\w+\s*\("
ROUTINES = r"""
    WITH RECURSIVE routines AS (
      SELECT proname, lanname, prorettype = 'trigger'::regtype AS is_trigger,
        concat(prosrc, pg_get_function_sqlbody(p.oid)) AS body
      FROM pg_proc AS p JOIN pg_language AS l ON l.oid = prolang
      WHERE lanname NOT IN ('internal', 'c') AND pronamespace <> 'pg_catalog'::regnamespace
        AND pronamespace <> 'information_schema'::regnamespace
    ), setters AS (
      SELECT proname, is_trigger,
        body ~* 'set_config\s*\([^;]*,\s*false\s*\)|\mset\s+session\M' AS outlasts
      FROM routines WHERE body ~* '\m(set|reset|execute)' OR lanname NOT IN ('sql', 'plpgsql')
      UNION SELECT r.proname, r.is_trigger, s.outlasts
      FROM routines AS r JOIN setters AS s ON strpos(body, s.proname) > 0
    ) SELECT proname, bool_or(outlasts), bool_or(is_trigger) FROM setters GROUP BY proname
"""
WRITES = r"\b(INSERT|UPDATE|DELETE|MERGE)\b"  # what calls a trigger
Tell = Callable[[str], object]


async def that_tell_settings(connection: AsyncConnection) -> tuple[Tell, Tell]:
    """Return what tells whether a statement may make settings, and of a session."""
    rows = (await connection.execute(sa.text(ROUTINES))).all()
    called = {str(name): rf'\b{re.escape(str(name))}"?\s*\(' for name, *_ in rows}
    by_trigger = [WRITES] * any(is_trigger for *_, is_trigger in rows)
    may_set = search("|".join([SETS, *called.values(), *by_trigger]))
    outlasts = [called[str(name)] for name, of_session, _ in rows if of_session]
    of_session, local = search("|".join([OF_SESSION, *outlasts])), re.compile(LOCAL, re.IGNORECASE)

    @lru_cache(1_000)
    def may_outlast(statement: str) -> object:
        return of_session(local.sub("", statement))

    return lru_cache(1_000)(may_set), may_outlast  # an app has some hundred statements


def search(pattern: str) -> Tell:
    """Return what finds a pattern in a statement."""
    return re.compile(pattern, re.IGNORECASE).search
