# SPDX-FileCopyrightText: 2026 The fastapi-conftest authors
# SPDX-License-Identifier: MIT
"""What a conftest.py needs to give each test a clean PostgreSQL database.

Copy this folder beside your conftest.py, whole, and never edit it; a new version takes its place.
Where a test that is rolled back would differ from production, it is refused at that line, and runs
again with real commits. What is not noticed stands in docs/limits.md of fastapi-conftest: above
all, now() stands still in a transaction, and so in a test. The modules; each imports only those
below it:

hooks          what pytest is told: one event loop, which tests are ours
report         what a test has met, told at the end; whether it runs again
fixtures       fresh_database, empty_database; overrides that end with their test
steps          what the fixtures of the conftest call
serving        requests as a server runs them
sessions       how the app's sessions reach the database of the test
real_commits   the second path: real commits, found and deleted afterwards
rollback       the first path: one transaction, rolled back
fidelity       whether rollback shows what the app's connections would
savepoint      how all sessions share one connection
settings       which statements may make settings
pill           how the server blocks a COMMIT of the test
clone          a database of this process, in which one test at a time works
template       the schema, created once
server         which server, and whether it serves
embedded       PostgreSQL from a wheel, where no server is given
administrator  creates and drops databases
application    the app's own engines, connected to the database of the test
guard          which engines may connect, and where
addresses      where an engine would connect
drivers        questions to a connection
project        what the conftest has told
record         what a test meets while it runs; how it is refused, and how a run is
"""

from typing import Any

from . import fixtures, hooks, report
from .project import PREFIX, VERSION, isolate
from .serving import as_served
from .sessions import selecting_anew
from .steps import (
    begin_with_real_commits,
    begin_with_savepoint,
    clone_for_this_worker,
    schema_once,
    seed_once,
    sessions_in,
)

__all__ = [
    "VERSION",
    "as_served",
    "begin_with_real_commits",
    "begin_with_savepoint",
    "clone_for_this_worker",
    "isolate",
    "pytest_plugin_registered",
    "schema_once",
    "seed_once",
    "selecting_anew",
    "sessions_in",
]
__version__ = VERSION


def pytest_plugin_registered(manager: Any) -> None:
    """Register our hooks and fixtures, when a conftest imports this hook.

    As plugins of their own they work beside the project's hooks, which may have the same names.
    """
    for room in (fixtures, report, hooks):
        name = f"{PREFIX}_{room.__name__.rpartition('.')[2]}"
        if not manager.has_plugin(name):
            manager.register(room, name)
