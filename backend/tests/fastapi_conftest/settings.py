"""Which statements may make settings, or do what belongs to one session, as texts tell.

The savepoint undoes the settings of a transaction; those of a session outlast it, which one shared
connection cannot show. A statement may do so by its own text, or by that of a routine which it
calls, at any depth, or of a trigger. A false alarm costs no more than a second run.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

# At the beginning of a statement, which a comment may precede.
SETS = r"(\A|\*/|;|--[^\n]*\n)\s*((RE)?SET|DO)\b|\bset_\w+\s*\("
# What of it lasts for a transaction only.
FLAG = r"(true|(\$\d+|%\(\w+\)s)(::bool(ean)?)?)"  # of set_config, perhaps bound
IN_BRACKETS = r"\(([^()]|\([^()]*\))*\)"
LOCAL = (
    r"\bSET\s+(LOCAL|TRANSACTION|CONSTRAINTS)\b"
    rf"|\bset_config\s*\(([^()]|{IN_BRACKETS})*,\s*{FLAG}\s*\)"
)
OF_SESSION = r"\b(RE)?SET\s|\bset_\w+\s*\("
# The same in the body of a routine, whose UPDATE has a SET, too; and whether it may do DDL, or make
# a cursor, a prepared statement or a temporary object.
ROUTINES = r"""
    WITH RECURSIVE routines AS (
      SELECT proname, prorettype = 'trigger'::regtype AS is_trigger,
        concat(prosrc, pg_get_function_sqlbody(p.oid)) AS body,
        lanname NOT IN ('sql', 'plpgsql') AS is_other
      FROM pg_proc AS p JOIN pg_language AS l ON l.oid = prolang
      WHERE lanname NOT IN ('internal', 'c') AND pronamespace <> 'pg_catalog'::regnamespace
        AND pronamespace <> 'information_schema'::regnamespace
    ), flagged AS (
      SELECT proname, is_trigger, is_other OR body ~* '\m(set|reset|execute)' AS sets,
        regexp_replace(body, '\mset\s+(local|transaction|constraints)\M'
          '|\mset_config\s*\([^;()]*,\s*true\s*\)', '', 'gi') ~*
          '(^|[;$'']|--[^\n]*\n|\*/|\m(begin|then|else|loop))\s*(re)?set\s|\mset_config\s*\('
          AS outlasts,
        is_other OR body ~* '\m(create|alter|drop|truncate|execute|prepare|(ref)?cursor)\M' AS hides
      FROM routines
    ), found AS (
      SELECT * FROM flagged WHERE sets OR hides
      UNION SELECT r.proname, r.is_trigger, f.sets, f.outlasts, f.hides
      FROM routines AS r JOIN found AS f ON strpos(lower(body), lower(f.proname)) > 0
    ) SELECT proname, bool_or(is_trigger) AS is_trigger, bool_or(sets) AS sets,
        bool_or(outlasts) AS outlasts, bool_or(hides) AS hides FROM found GROUP BY proname
"""
WRITES = r"\b(INSERT|UPDATE|DELETE|MERGE)\b"  # what calls a trigger
Tell = Callable[[str], object]


class Tells(NamedTuple):
    """What tells of a statement what it may do.

    sets: it makes settings.
    outlasts: of the session, not of the transaction only.
    hides: a routine that it calls does what belongs to one session, or DDL.
    """

    sets: Tell
    outlasts: Tell
    hides: Tell


async def that_tell(connection: AsyncConnection) -> Tells:
    """Return what tells of a statement what it may do in this database."""
    rows = (await connection.execute(sa.text(ROUTINES))).all()
    sets, of_session, local = search(SETS), search(OF_SESSION), re.compile(LOCAL, re.IGNORECASE)
    by_routine = search(*calls(rows, "outlasts"))

    def outlasts(statement: str) -> object:
        return by_routine(statement) or (sets(statement) and of_session(local.sub("", statement)))

    return Tells(
        lru_cache(1_000)(search(SETS, *calls(rows, "sets"))),  # an app has some hundred statements
        lru_cache(1_000)(outlasts),
        lru_cache(1_000)(search(*calls(rows, "hides"))),
    )


def binds_false(statement: str, parameters: object) -> bool:
    """Tell whether the flag of set_config may be bound, and false: then the setting outlasts."""
    return "set_config" in statement.lower() and "False" in repr(parameters)


def calls(rows: Any, column: str) -> list[str]:
    """Return patterns of what calls the routines of which a column is true."""
    found = [row for row in rows if getattr(row, column)]
    names = [rf'\b{re.escape(row.proname)}"?\s*\(' for row in found]
    return names + [WRITES] * any(row.is_trigger for row in found)


def search(*patterns: str) -> Tell:
    """Return what finds one of these patterns in a statement."""
    return re.compile("|".join(patterns) or r"(?!)", re.IGNORECASE).search
