"""The one savepoint of a test, by which the commits and rollbacks of all its sessions are emulated.

All sessions of a test share one connection to the server, with one transaction, in which there is
one savepoint. A commit releases it and sets it anew; a rollback, and closing a session, goes back
to it. So a forgotten commit loses its rows, as in production. The savepoint belongs to one session
at a time: gathered requests work as long as none executes a statement while another one holds
changes. The one that does is refused, and its test runs again with real commits.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy.pool import PoolProxiedConnection

from .drivers import finish, in_transaction, is_lost, sqlstate
from .guard import ask
from .pill import CHECK, ENDS, ONLY_HERE, SAVEPOINT
from .refusals import refuse

UNDO = f"ROLLBACK TO {SAVEPOINT}"
# Fails where the owner has met an error; and, by a division by zero, where it has written, has
# locked a table, or has an advisory lock. The pill gives the transaction an id, which is one lock;
# a savepoint that has written has a second.
ASK = """
    SELECT 1 / (count(*) < 2)::int FROM pg_locks WHERE pid = pg_backend_pid() AND (
      locktype IN ('transactionid', 'advisory') OR locktype = 'relation'
      AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
"""
# What takes a lock that outlives its transaction: the server cannot tell then whose it is.
takes_session_lock = lru_cache(1_000)(
    re.compile(r"\bpg_(try_)?advisory_lock", re.IGNORECASE).search
)
LOST = "the connection of the test was lost: by a restart, a time-out or an end of its session."
UNCOMMITTED = (
    "another session of this test holds changes, or an error. In production this one would not see "
    "them: commit or roll back first, in a test with `await db.commit()` before the request."
)
MADE_SETTINGS = "another session of this test has made settings, and not committed yet."


class Facts(NamedTuple):
    """What a savepoint has to know of its database and its connection."""

    commit: str  # the script of a commit
    are_deferrable: bool  # some constraints, whose check belongs to the commit
    may_set: Callable[[str], object]  # tells whether a statement may make settings


class Savepoint:
    """The savepoint of one test: made when the test begins, and dropped when it ends.

    shared: the connection to the server.
    known: what this test has checked out of the pool; held so that none is collected, which would
        close the shared connection.
    owner: whose work the savepoint can undo, until its commit or rollback.
    """

    def __init__(self, shared: Any, first: PoolProxiedConnection, facts: Facts) -> None:
        """Begin with the connection of `db_transaction`."""
        self.shared, self.first, self.facts = shared, first, facts
        self.known: dict[PoolProxiedConnection, None] = {first: None}
        self.owner: PoolProxiedConnection | None = None
        self.has_set = False  # the owner, since its last commit
        self.is_executing = False
        self.by_text = False  # a statement was written as text, and so can be DDL

    @contextmanager
    def turn(self, mine: PoolProxiedConnection) -> Iterator[None]:
        """Let this connection execute something, once no statement of another runs."""
        if mine not in self.known:
            refuse("a statement outside the transaction of a test.", ask())
        while self.is_executing:
            self.shared.run_async(lambda _: asyncio.sleep(0.001))
        self.check_transaction()
        self.is_executing = True
        try:
            yield
        except Exception as error:
            self.check_transaction()
            if sqlstate(error) in ONLY_HERE:
                refuse(str(error).partition("\n")[0])  # psycopg adds the server's context
            raise
        finally:
            self.is_executing = False
        self.check_transaction()

    def check_transaction(self) -> None:
        """Refuse whatever has ended the transaction of the test."""
        if is_lost(self.shared):
            refuse(LOST)
        if not in_transaction(self.shared):
            refuse(ENDS)

    def execute(self, name: str, cursor: Any, statement: str, *rest: Any) -> None:
        """Execute a statement in the savepoint, once that is this connection's."""
        context = rest[-1]
        mine = context.root_connection.connection
        with self.turn(mine):
            if context.execution_options.get("stream_results"):
                refuse("a cursor on the server, which reads between other sessions' statements.")
            if takes_session_lock(statement):
                refuse("an advisory lock of the session: here all sessions are one.")
            if self.owner is not mine:
                self.pass_to(mine)
            self.by_text |= context.is_text or context.isddl
            self.has_set |= bool(self.facts.may_set(statement))
            getattr(context.dialect, name)(cursor, statement, *rest)

    def pass_to(self, mine: PoolProxiedConnection) -> None:
        """Give the savepoint to another connection, where its owner has only read."""
        if self.owner:
            self.ask_owner(then=UNDO)
            if self.has_set:
                refuse(MADE_SETTINGS)
        self.owner = mine

    def ask_owner(self, then: str) -> None:
        """Refuse unless the owner has only read; else run a script."""
        try:
            self.send(f"{ASK}; {then}")
        except Exception:  # noqa: BLE001 - a changed row, or an earlier error of the owner
            refuse(UNCOMMITTED)

    def send(self, script: str) -> None:
        """Run a script in one round trip, which cancelling the task does not stop half-way."""
        self.shared.run_async(lambda driver: finish(driver.execute(script)))

    def commit(self, mine: PoolProxiedConnection) -> None:
        """Do what a COMMIT does, but for writing to the disk."""
        with self.turn(mine):
            if self.owner not in (None, mine):
                self.ask_owner(then="")  # `mine` may have written by a DBAPI cursor
                return
            try:
                if self.facts.are_deferrable or self.by_text:
                    mine.cursor().execute(CHECK)
                self.send(self.facts.commit)
            except BaseException as error:
                if in_transaction(self.shared):
                    self.send(UNDO)
                if sqlstate(error) != "25P02":  # as PostgreSQL's COMMIT of what has failed
                    raise
            finally:
                self.free()

    def roll_back(self, mine: PoolProxiedConnection) -> None:
        """Undo what this connection has not committed."""
        if self.owner is mine and in_transaction(self.shared):
            with self.turn(mine):
                if self.owner is mine:  # still, after a wait for its turn
                    try:
                        self.send(UNDO)
                    finally:
                        self.free()

    def free(self) -> None:
        """Let the next one who executes a statement own the savepoint."""
        self.owner, self.has_set = None, False
