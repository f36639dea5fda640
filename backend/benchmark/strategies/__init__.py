"""Known ways to give each test a clean database, each a pytest plugin on top of others.

A module holds what it does differently from the plugins that stand before it here, and nothing
else.
"""

import os
from pathlib import Path

from benchmark.runs import BACKEND, TESTS, Strategy

HERE = Path(__file__).parent
BEFORE = (BACKEND / "benchmark" / "before.py",)
ONCE = (*BEFORE, HERE / "once.py")
OURS = (TESTS / "conftest.py",)
PRODUCTION_HASHING = HERE / "production_hashing.py"
# One connection for all tests needs one event loop for all tests.
ONE_LOOP = (
    "--noconftest",
    "-oasyncio_default_fixture_loop_scope=session",
    "-oasyncio_default_test_loop_scope=session",
)
CPUS = os.cpu_count() or 2

STRATEGIES = (
    Strategy("drop and create, production hashing", (*BEFORE, PRODUCTION_HASHING)),
    Strategy("drop and create", BEFORE),
    Strategy(f"drop and create, -n {CPUS}", BEFORE, CPUS),
    Strategy("drop and create, roles once", (*ONCE, HERE / "roles_once.py"), options=ONE_LOOP),
    Strategy("clone a test", (*ONCE, HERE / "clone.py"), options=ONE_LOOP),
    Strategy("TRUNCATE", (*ONCE, HERE / "truncate.py"), options=ONE_LOOP),
    Strategy("DELETE", (*ONCE, HERE / "delete.py"), options=ONE_LOOP),
    Strategy("this conftest, production hashing", (*OURS, PRODUCTION_HASHING)),
    Strategy("this conftest", OURS),
    Strategy(f"this conftest, -n {CPUS}", OURS, CPUS),
    Strategy("this conftest, real commits", OURS, options=("--noconftest", "--real-commits")),
)
# What each step gains on its own, in the order in which a project would take them.
LADDER = (
    ("as found", "drop and create, production hashing"),
    ("cheap password hashing", "drop and create"),
    ("roles once, no override", "drop and create, roles once"),
    ("schema once", "TRUNCATE"),
    ("DELETE", "DELETE"),
    ("rollback", "this conftest"),
    ("parallel", f"this conftest, -n {CPUS}"),
)
