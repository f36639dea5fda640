"""What a test meets while it runs: it is noted for the report, or ends the test or the run.

A test is refused at the line where it could differ from production or reach another test. What
real commits can do is noted as such, and the test runs again with them. A run is refused where the
set-up is wrong. Both say what is wrong and what to do.

`running()` is the record of the test that runs, or of the one that ran last: what is noted between
two tests, when fixtures of a module end, belongs to the test before it.
"""

from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

import pytest

# Not an Exception, so that `except Exception` in the application cannot swallow it.
Refusal = pytest.fail.Exception
SetUpError: TypeAlias = pytest.UsageError

# The kinds of notes. REFUSED is final; RETRY is what real commits can do, so the test runs again.
REFUSED, RETRY, CLONED, LEFT = "refused", "retry", "cloned anew", "left"
ENDS_THE_RUN = "ends the run"
NOT_IN_FORCE = "row-level security not in force"
BY_FLAW = "real commits for all"
ENDED = "connection ended after the test"
NEVER_GIVEN_BACK = "a connection that was never given back"
MARKER = "@pytest.mark.fresh_database"
REAL_COMMITS_HELP = (
    f"With {MARKER} the test has real connections and real commits, where this works."
)


@dataclass
class Record:
    """One run of one test, in types that xdist can send."""

    real_commits: bool = False
    first_refusal: str = ""  # of the run before this one, where this is the second
    notes: list[tuple[str, str]] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)  # of the phases
    is_called: bool = False  # the test itself runs, and none of its fixtures

    def note(self, kind: str, text: str) -> None:
        """Note something for the report."""
        self.notes.append((kind, text))

    def texts(self, *kinds: str) -> list[str]:
        """Return what was noted under these kinds."""
        return [text for kind, text in self.notes if kind in kinds]


_running = Record()
# The fixtures that live longer than a test and are being set up, the innermost last.
wide_fixtures: list[str] = []


def running() -> Record:
    """Return the record of the test that runs."""
    return _running


def begin(record: Record) -> Record:
    """Make this the record of the test that runs."""
    global _running  # noqa: PLW0603 - one test at a time runs in a process
    _running = record
    return record


def refuse(problem: str, advice: str = REAL_COMMITS_HELP) -> NoReturn:
    """Fail the test at this line.

    Without other advice it is something that real commits can do, and the test runs again.
    """
    __tracebackhide__ = True
    running().note(RETRY if advice is REAL_COMMITS_HELP else REFUSED, problem)
    pytest.fail(f"Refused: {problem}\n{advice}")


def failure(problem: str, fix: str) -> BaseException:
    """Return the error that fails a test without a traceback: the machine is at its limits."""
    return Refusal(f"{problem}\nTo fix it: {fix}", pytrace=False)


def set_up_error(problem: str, fix: str) -> SetUpError:
    """Return the error that ends the run with one message: what is wrong, and what to type."""
    return SetUpError(f"{problem}\nTo fix it: {fix}")
