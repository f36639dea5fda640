"""Tests of the conftest and its folder, from outside. Each names its promise in its first line.

1   The schema is created once, not once a test, a worker or a run.
2   What a test does is gone for the next test.
3   What a test sees is what production would show, or the test runs again.
4   Real commits are cleaned up, and that is verified.
5   Workers and runs at the same time do not meet.
6   Nothing connects to a database that the run has not made, unless it is allowed.
7   A killed run leaves nothing behind after the next one.
8   With nothing configured, PostgreSQL starts and stops by itself.
9   A wrong set-up ends the run at once, with one message.
10  The report says what was special.
11  It works wherever it is copied, in projects of other shapes.
12  A test that rollback cannot serve runs again with real commits.
"""

import sys
from pathlib import Path

# Where the reference conftest finds fastapi_conftest, too.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
