"""How a test is refused, and how a run is.

A test is refused at the line where it could differ from production or reach another test. What
real commits can do is noted as such, and the test runs again with them. A run is refused where the
set-up is wrong, with one message. Both say what is wrong and what to do.
"""

from __future__ import annotations

from typing import NoReturn, TypeAlias

import pytest

from .record import REFUSED, RETRY, running

# Not an Exception, so that an application that catches everything cannot swallow it.
Refusal = pytest.fail.Exception
SetUpError: TypeAlias = pytest.UsageError

MARKER = "@pytest.mark.fresh_database"
REAL_COMMITS_HELP = (
    f"With {MARKER} the test has real connections and real commits, where this works."
)


def refuse(problem: str, advice: str = REAL_COMMITS_HELP) -> NoReturn:
    """Fail the test at this line.

    Without other advice it is something that real commits can do, and the test runs again.
    """
    __tracebackhide__ = True
    running().note(RETRY if advice is REAL_COMMITS_HELP else REFUSED, problem)
    pytest.fail(f"Refused: {problem}\n{advice}")


def failure(problem: str, fix: str) -> BaseException:
    """Return the error that fails a test without a traceback: the machine is at its limits."""
    return Refusal(f"{problem}\nTo mend it: {fix}", pytrace=False)


def set_up_error(problem: str, fix: str) -> SetUpError:
    """Return the error that ends the run with one message: what is wrong, and what to type."""
    return SetUpError(f"{problem}\nTo mend it: {fix}")
