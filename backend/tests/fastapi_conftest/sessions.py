"""How the app's own sessions, wherever they are made, reach the database of the test.

They ask their AsyncEngine, which stands for the engine of the test's database while a test runs;
between tests it is what it was.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.orm.attributes import set_committed_value

from .guard import listening, open_databases
from .record import LEFT, refuse, running

PATIENCE = 20  # seconds to wait for a task to end


@contextmanager
def redirected(stand_ins: list[tuple[AsyncEngine, Any]]) -> Iterator[None]:
    """Have engines work as others do, which stand for them, for as long as the context lasts."""
    before = [(each, each.sync_engine) for each, _ in stand_ins]
    for each, other in stand_ins:
        each.sync_engine = other
    try:
        yield
    finally:
        for each, own in before:
            each.sync_engine = own


@asynccontextmanager
async def no_task_outlives_this() -> AsyncIterator[None]:
    """End the tasks that were started in between, before they can work in the next test."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    for task in left:
        running().note(LEFT, getattr(task.get_coro(), "__qualname__", repr(task)))
        task.cancel()
    if left and (await asyncio.wait(left, timeout=PATIENCE))[1]:
        problem = f"a task that the test has left does not end within {PATIENCE} s."
        refuse(problem, "Await its end.")


def relationships_loaded(session: Session) -> Iterator[tuple[Any, str, Any]]:
    """Yield the relationships that the objects of a session have loaded, with their values."""
    for one in session.identity_map.values():
        state = sa.inspect(one)
        for name in state.mapper.relationships.keys() & state.dict.keys():
            yield one, name, state.dict[name]


def may_refresh(state: ORMExecuteState) -> bool:
    """Tell whether this is a query of the test that can refresh what its session has loaded.

    Without a flush before it, it would overwrite what the test has changed.
    """
    options = state.execution_options
    is_of_test = not (state.is_column_load or state.is_relationship_load)
    is_whole = not {"stream_results", "yield_per"} & options.keys()
    flushes = state.session.autoflush and options.get("autoflush", True)
    flushes = flushes and not state.session._flushing  # noqa: SLF001 - as a before_flush would
    return bool(state.is_select and state.is_orm_statement and is_of_test and is_whole and flushes)


def selected_anew(state: ORMExecuteState) -> Any:
    """Return the result of a query that refreshes loaded objects; relationships stay loaded."""
    loaded = [*relationships_loaded(state.session)]
    result: Any = state.invoke_statement(execution_options={"populate_existing": True})
    # With joined collections SQLAlchemy demands that the test calls unique(): now and later.
    demand = result._unique_filter_state  # noqa: SLF001 - no other way to ask
    again = (result.unique() if demand else result).freeze()()
    for one, name, value in loaded:
        if name in sa.inspect(one).unloaded:
            set_committed_value(one, name, value)
    again._unique_filter_state = demand  # noqa: SLF001 - nor to demand it
    return again


@contextmanager
def selecting_anew(session: Session | AsyncSession) -> Iterator[None]:
    """Once another session has committed, refresh loaded objects that this one selects again.

    Until then, as in production, loaded rows and relationships stay as they are. `session.get` does
    not look for what has changed, `session.refresh` does.

    session: the test's own; asynchronous or not.
    """
    sync_session = session.sync_session if isinstance(session, AsyncSession) else session
    own, others_committed = WeakSet[sa.Connection](), False

    def note(connection: sa.Connection) -> None:
        nonlocal others_committed
        others_committed |= connection not in own

    def refresh(state: ORMExecuteState) -> Any:
        may_be_stale = others_committed or open_databases  # where commits may go unseen
        return selected_anew(state) if may_be_stale and may_refresh(state) else None

    sa.event.listen(sync_session, "after_begin", lambda *these: own.add(these[-1]))
    sa.event.listen(sync_session, "do_orm_execute", refresh)
    with listening(sa.Engine, commit=note):
        yield
