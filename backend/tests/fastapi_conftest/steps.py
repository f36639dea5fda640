"""What the fixtures of the conftest call, in the order of their lifetime."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from .administrator import Administrator
from .application import Connections, connections
from .clone import Clone, Seed
from .guard import what_to_ask_for
from .project import check_hooks, project
from .real_commits import RealCommits
from .record import BY_FLAW, SetUpError, refuse, running, set_up_error, wide_fixtures
from .rollback import Rollback
from .sessions import no_task_outlives_this, redirected
from .template import Template, prepare

_found: list[Template | str] = []  # by schema_once; a text says what is wrong with the set-up
_workers: list["Worker"] = []


async def schema_once(*, rebuild: bool = False) -> Template:
    """Return the template database that holds the schema, built when it is not there yet.

    It is built when the models, `create_schema` or a file of `schema_files` have changed, or with
    `pytest --rebuild-schema`. The first call of a process looks for it; with xdist the controller
    has done so for all workers.

    A server that cannot be used, and a schema that cannot be created, end the run with one message.
    """
    check_hooks()
    if not _found:
        try:
            _found.append(await prepare(rebuild=rebuild))
        except SetUpError as error:
            _found.append(str(error))
    if isinstance(found := _found[0], str):
        raise SetUpError(found)
    if unknown := sorted(project().metadata.tables.keys() - set(found.tables)):
        problem = (
            f"Only this process knows the tables {', '.join(unknown)}, not what built the schema"
        )
        fix = "import the modules of these models above isolate(...)"
        raise set_up_error(problem, f"{fix} in {project().conftest}")
    return found


def hand_over(template: Template | str) -> None:
    """Have `schema_once` return what the controller has found, or raise what it has met."""
    _found[:] = [template]


def found() -> Template | str | None:
    """Return what `schema_once` has found or met, if it was called."""
    return _found[0] if _found else None


class Worker:
    """The databases of this process, one for each path, and the engine by which tests know them."""

    def __init__(self, template: Template, admin: Administrator, connections: Connections) -> None:
        """Describe the databases; each is cloned when its first test needs it."""
        name = os.environ.get("PYTEST_XDIST_WORKER", "main")
        self.admin, self.connections = admin, connections
        self.rollback = Rollback(name, template, admin, connections)
        self.real_commits = RealCommits(f"{name}_real", template, admin, connections)
        connections.loop = asyncio.get_running_loop()

    @property
    def engine(self) -> Any:
        """The application's own engine, on the database of the test that runs."""
        return self.connections.engines[0]

    @property
    def clone(self) -> Clone:
        """The database of the test that runs."""
        return self.real_commits if running().real_commits else self.rollback

    async def start_test(self) -> Any:
        """Let a test work on its database; return its own connection."""
        if not running().real_commits:
            connection = await self.rollback.start_test()
            if not self.rollback.flaw:
                return connection
            await self.rollback.end_test(connection)
            running().note(BY_FLAW, self.rollback.flaw)
            running().real_commits = True
        return await self.real_commits.start_test()

    async def seed(self, seed: Seed) -> None:
        """Have each database seeded when it is cloned; those that are there are cloned anew."""
        for clone in (self.rollback, self.real_commits):
            clone.seeds.append(seed)
            await clone.close()

    async def drop(self) -> None:
        """Drop the databases that were made."""
        for clone in (self.rollback, self.real_commits):
            await clone.drop()


@asynccontextmanager
async def clone_for_this_worker(template: Template) -> AsyncIterator[Worker]:
    """Give this process databases of its own, cloned from the template; drop them at the end.

    `.engine` of what is yielded is the application's own engine. It works on the database of the
    test that runs; without a test, it is refused.
    """
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(aclosing(template.administrator()))
        worker = Worker(template, admin, connections())
        stack.push_async_callback(worker.drop)
        _workers.append(worker)
        stack.callback(_workers.remove, worker)
        yield worker


def worker_of(engine: Any) -> Worker:
    """Return the worker whose engine this is."""
    for worker in _workers:
        if engine in worker.connections.engines:
            return worker
    problem = f"{engine!r} is not the engine of clone_for_this_worker"
    raise set_up_error(problem, f"pass on what the fixture engine yields, in {project().conftest}")


async def seed_once(engine: AsyncEngine, seed: Seed) -> None:
    """Write the rows that every test finds, once into each database of this process.

    engine: the one of `clone_for_this_worker`.
    seed: a function of a session of the application: of an asynchronous one if it is `async`, else
        of a synchronous one. What it leaves uncommitted is committed.
    """
    await worker_of(engine).seed(seed)


@dataclass
class Transaction:
    """What one test does in its database, and the connection that it may use itself."""

    clone: Clone
    connection: Any

    async def roll_back(self) -> None:
        """Undo all that the test has done, committed or not."""
        await self.clone.end_test(self.connection)

    delete = roll_back  # what was committed for good


async def begin_with_savepoint(engine: Any) -> Transaction:
    """Begin the transaction of a test, and set the savepoint for what the test commits.

    With @pytest.mark.fresh_database there is neither: commits are real, and `roll_back` deletes
    what they have left.

    engine: the one of `clone_for_this_worker`.
    """
    if wide_fixtures:
        refuse("the transaction of a test, in a fixture that lives longer.", what_to_ask_for())
    worker = worker_of(engine)
    connection = await worker.start_test()
    return Transaction(worker.clone, connection)


async def begin_with_real_commits(engine: Any) -> Transaction:
    """Begin a test whose commits are real: what synchronous applications need.

    `delete` deletes all that the test has committed, and verifies that nothing else is left of it.
    The connection is of the kind that the application's first engine has.

    engine: the one of `clone_for_this_worker`.
    """
    running().real_commits = True
    return await begin_with_savepoint(engine)


@asynccontextmanager
async def sessions_in(connection: Any) -> AsyncIterator[None]:
    """Have the app's sessions, and all else on its engines, work in the transaction of the test.

    Tasks that a request or the test starts may run until the fixture override_get_db ends; those
    left then are cancelled, and named at the end of the report.

    connection: that of `begin_with_savepoint`.
    """
    (worker,) = _workers
    with redirected(worker.rollback.stand_ins if worker.clone is worker.rollback else []):
        async with no_task_outlives_this():
            yield
