"""Other published ways of giving each test a clean database, and ours, under one neutral suite.

Each module but `common` is a pytest plugin that offers the suite a fixture `session`. In
.venv-rivals, with PYTHONPATH=backend and the server's URL in TEST_DATABASE_URL:

    pytest --noconftest -p benchmark.rivals.NAME backend/benchmark/rivals/neutral

ours               the folder fastapi_conftest, under a conftest of its own
recipe             SQLAlchemy's recipe: a connection, a transaction and savepoints, rolled back
pytest_sqla        the same recipe as a plugin, with checks; its fast setting, a pooled connection
pytest_postgresql  a database cloned from a template for each test, and dropped after it
pgmem              a PostgreSQL in memory, on no server; a fork of its state for each test
py_pglite          PostgreSQL as WebAssembly in Node.js, on no server; all tables truncated

All use asyncpg but py_pglite, whose async fixtures bring psycopg. All run on one event loop, as a
pool of connections lives no longer than its loop: pytest-sqla would connect anew for each test.
On workers of pytest-xdist all are green but py_pglite, whose workers share one folder and fail: it
is for runs in one process.

Not measured: requests to an application, because most of these know of sessions only; pgmem and
py-pglite on the server that the others use, because they bring their own; pytest-pglite, which in
November 2026 could not be installed from the index at hand; pytest-async-sqlalchemy 0.2.0, which
fails with "fixture 'event_loop' not found" on pytest-asyncio 1; pytest-sqlalchemy 0.3.0 and
pytest-sqlalchemy-session 0.3.4b1, which have no async sessions.
"""
