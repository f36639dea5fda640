"""The one savepoint of a test, by which the commits and rollbacks of all its sessions are emulated.

All sessions of a test share one connection to the server, with one transaction, in which there is
one savepoint. A commit releases it and sets it anew; a rollback, and closing a session, goes back
to it. So a forgotten commit loses its rows, as in production. The savepoint belongs to one session
at a time: gathered requests work as long as none executes a statement while another one holds
changes. The one that does is refused, and its test runs again with real commits.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from typing import Any, NamedTuple, NoReturn

from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.sql.expression import HasCTE

from .drivers import execute, finish, in_transaction, is_lost, sqlstate
from .guard import what_to_ask_for
from .pill import CHECK, CURSORS, ENDS, ONLY_HERE, PREPARED, SAVEPOINT
from .record import Record, refuse, running
from .settings import Tells, binds_false

UNDO = f"ROLLBACK TO {SAVEPOINT}"
# Fails where the owner has met an error; and, by a division by zero, where it has written, has
# locked a table, or has an advisory lock. A transaction with an id holds a lock on it, and so does
# a savepoint that has written. The pill gives the test's transaction an id, so two mean a write.
ASK = """
    SELECT 1 / (count(*) < 2)::int FROM pg_locks WHERE pid = pg_backend_pid() AND (
      locktype IN ('transactionid', 'advisory') OR locktype = 'relation'
      AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
"""
# The same for what no lock shows.
ASK_AFTER_TEXT = f"{ASK}; SELECT 1 / (NOT {PREPARED} AND NOT {CURSORS})::int"
GRACE = 0.1  # seconds for a refusal to reach the test
PATIENCE = 10  # seconds to wait for the statement of another session
# What takes a lock that outlives its transaction: the server cannot tell then whose it is.
takes_session_lock = lru_cache(1_000)(
    re.compile(r"\bpg_(try_)?advisory_lock", re.IGNORECASE).search
)
LOST = "the connection of the test was lost: by a restart, a time-out or an end of its session."
UNCOMMITTED = (
    "another session of this test holds changes, or an error. In production this one would not see "
    "them: commit or roll back first, in a test with `await db.commit()` before the request. Table "
    "locks and advisory locks last until the test ends."
)
CUT_OFF = "work after a cancelled statement: in production its connection is closed."
MADE_SETTINGS = "another session of this test has made settings, and not committed yet."
OUTLASTS = "a setting of the session, which outlasts its transaction: here all sessions are one."


class Facts(NamedTuple):
    """What a savepoint has to know of its database and its connection."""

    settings: str  # the script that makes the settings those of a new connection
    are_deferrable: bool  # some constraints, whose check belongs to the commit
    may: Tells  # what a statement may do


class Savepoint:
    """The savepoint of one test: made when the test begins, and dropped when it ends.

    shared: the connection to the server.
    known: what this test has checked out of the pool; held so that none is collected, which would
        close the shared connection.
    owner: whose work the savepoint can undo, until its commit or rollback.
    cut_off: of whom a statement was cancelled, until its rollback.
    turns: who may execute a statement; in the order in which they have asked.
    """

    def __init__(self, shared: Any, first: PoolProxiedConnection, facts: Facts) -> None:
        """Begin with the connection of `db_transaction`."""
        self.shared, self.first, self.facts = shared, first, facts
        self.known: dict[PoolProxiedConnection, None] = {first: None}
        self.owner: PoolProxiedConnection | None = None
        self.cut_off = set[PoolProxiedConnection]()
        self.has_set = self.outlasts = False  # the owner, since its last commit
        self.turns, self.executing = asyncio.Lock(), ""
        self.by_text = False  # a statement may have been DDL: written as text, or by a routine
        self.tasks_before = asyncio.all_tasks()

    def refuse(self, problem: str) -> NoReturn:
        """Refuse a statement, and end this run of the test soon, should nobody hear it."""
        __tracebackhide__ = True
        cancel = partial(self.cancel_tasks, running())
        # Not a timer of the loop, whose clock may stand still.
        timer = threading.Timer(GRACE, call_soon, [asyncio.get_running_loop(), cancel])
        timer.daemon = True
        timer.start()
        refuse(problem)

    def cancel_tasks(self, record: Record) -> None:
        """Cancel all tasks of the test, unless its fixtures end in order already."""
        if record.is_called:
            for task in asyncio.all_tasks() - self.tasks_before:
                task.cancel()

    @contextmanager
    def turn(self, mine: PoolProxiedConnection, statement: str) -> Iterator[None]:
        """Let this connection execute something, once all who have asked before have done so."""
        if mine not in self.known:
            refuse("a statement outside the transaction of a test.", what_to_ask_for())
        if mine in self.cut_off:
            self.refuse(CUT_OFF)
        self.shared.run_async(self.wait)
        try:
            self.executing = statement
            self.check_transaction()
            yield
        except Exception as error:
            self.check_transaction()
            if sqlstate(error) in ONLY_HERE:
                self.refuse(str(error).partition("\n")[0])  # psycopg adds the server's context
            raise
        finally:
            self.turns.release()
        self.check_transaction()

    async def wait(self, _: object) -> None:
        """Wait for a turn; give up where the statement of another session takes too long."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self.turns.acquire()
        except TimeoutError:
            self.refuse(
                f"a wait of {PATIENCE} s for another session, which executes {self.executing}"
            )

    def check_transaction(self) -> None:
        """Refuse whatever has ended the transaction of the test."""
        if is_lost(self.shared):
            self.refuse(LOST)
        if not in_transaction(self.shared):
            self.refuse(ENDS)

    def execute(self, name: str, cursor: Any, statement: str, *rest: Any) -> None:
        """Execute a statement in the savepoint, once that is this connection's."""
        context = rest[-1]
        mine = context.root_connection.connection
        with self.turn(mine, statement):
            if context.execution_options.get("stream_results"):
                self.refuse(
                    "a cursor on the server, which reads between other sessions' statements."
                )
            if takes_session_lock(statement):
                self.refuse("an advisory lock of the session: here all sessions are one.")
            if self.owner is not mine:
                self.pass_to(mine)
            may, is_query = self.facts.may, isinstance(context.invoked_statement, HasCTE)
            self.by_text |= context.is_text or not is_query or bool(may.hides(statement))
            if may.sets(statement):
                self.has_set = True
                self.outlasts |= bool(may.outlasts(statement)) or binds_false(statement, rest[0])
            getattr(context.dialect, name)(cursor, statement, *rest)

    def pass_to(self, mine: PoolProxiedConnection) -> None:
        """Give the savepoint to another connection, where its owner has only read."""
        if self.owner:
            self.ask_owner(then=UNDO)
            if self.has_set:
                self.refuse(MADE_SETTINGS)
        self.owner = mine

    def ask_owner(self, then: str) -> None:
        """Refuse unless the owner has only read; else run a script."""
        try:
            self.send(f"{ASK_AFTER_TEXT if self.by_text else ASK}; {then}")
        except Exception:  # noqa: BLE001 - a changed row, or an earlier error of the owner
            self.refuse(UNCOMMITTED)

    def send(self, script: str) -> None:
        """Run a script in one round trip, which cancelling the task does not stop half-way."""
        self.shared.run_async(lambda driver: finish(execute(driver, script)))

    def commit(self, mine: PoolProxiedConnection) -> None:
        """Do what a COMMIT does, but for writing to the disk."""
        with self.turn(mine, "COMMIT"):
            if self.owner not in (None, mine):
                self.ask_owner(then="")  # `mine` may have written by a DBAPI cursor
                return
            if self.outlasts:
                self.refuse(OUTLASTS)
            try:
                if self.facts.are_deferrable or self.by_text:
                    mine.cursor().execute(CHECK)
                # Where text was executed, a view may have made settings unseen.
                settings = f"{self.facts.settings}; " if self.has_set or self.by_text else ""
                self.send(f"{settings}RELEASE {SAVEPOINT}; {SAVEPOINT}")
            except BaseException as error:
                if in_transaction(self.shared):
                    self.send(UNDO)
                if sqlstate(error) == "42501":  # of SET CONSTRAINTS, it may be
                    self.refuse(str(error).partition("\n")[0])
                if sqlstate(error) != "25P02":  # as PostgreSQL's COMMIT of what has failed
                    raise
            finally:
                self.free()

    def roll_back(self, mine: PoolProxiedConnection) -> None:
        """Undo what this connection has not committed."""
        self.cut_off.discard(mine)
        if self.owner is mine and in_transaction(self.shared):
            with self.turn(mine, "ROLLBACK"):
                if self.owner is mine:  # still, after a wait for its turn
                    try:
                        self.send(UNDO)
                    finally:
                        self.free()

    def free(self) -> None:
        """Let the next one who executes a statement own the savepoint."""
        self.owner, self.has_set, self.outlasts = None, False, False


def call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Have an event loop call a function, from another thread, unless the loop has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function)
