"""What a test meets while it runs: noted by the other rooms, told by the report.

`running()` is the record of the test that runs, or of the one that ran last: what is noted between
two tests, when fixtures of a module end, belongs to the test before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# The kinds of notes. REFUSED is final; RETRY is what real commits can do, so the test runs again.
REFUSED, RETRY, CLONED, LEFT = "refused", "retry", "cloned anew", "left"
ENDS_THE_RUN = "ends the run"
NOT_CALLED = "not called by rollback"
NOT_IN_FORCE = "row-level security not in force"
BY_FLAW = "real commits for all"
ENDED = "connection ended after the test"
NEVER_GIVEN_BACK = "a connection that was never given back"


@dataclass
class Record:
    """One run of one test."""

    real_commits: bool = False
    first_refusal: str = ""  # of the run before this one, where this is the second
    notes: list[tuple[str, str]] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)  # of the phases
    is_called: bool = False  # the test itself runs, and none of its fixtures

    def note(self, kind: str, text: str) -> None:
        """Note something for the report."""
        self.notes.append((kind, text))

    def note_once(self, kind: str, text: str) -> None:
        """Note something that a test may meet many times."""
        if (kind, text) not in self.notes:
            self.note(kind, text)

    def texts(self, *kinds: str) -> list[str]:
        """Return what was noted under these kinds."""
        return [text for kind, text in self.notes if kind in kinds]

    def told(self) -> dict[str, Any]:
        """Return what the report needs, in types that xdist can send."""
        return {
            "real_commits": self.real_commits,
            "first_refusal": self.first_refusal,
            "notes": [[kind, text] for kind, text in self.notes],
        }


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
