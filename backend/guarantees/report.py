"""What the end of a run says about its databases."""

import pytest

ADVICE = "*With @pytest.mark.fresh_database the test has real connections and real commits*"
UNCOMMITTED = "another session of this test holds changes, or an error."
ENDS = "this would end the transaction of the test."
DRIVER = "the driver's own connection."
CURSOR = "a cursor on the server, which speaks between other sessions' statements."
LOST = "the connection of the test was lost:"


def ran_again(result: pytest.RunResult) -> dict[str, str]:
    """Return the tests that the end of the report says to mark, without their file, and why."""
    heads = [number for number, line in enumerate(result.outlines) if " need real commits" in line]
    found: dict[str, str] = {}
    reason = ""
    for line in result.outlines[heads[0] + 1 :] if heads else []:
        if line.startswith("    "):
            found[line.strip().split("::", 1)[1]] = reason
        elif line.startswith("  "):
            reason = line.strip()
        else:
            break
    if heads:
        assert result.outlines[heads[0]].startswith(f"{len(found)} tests need real commits"), found  # noqa: S101
    return found


def counts(result: pytest.RunResult) -> tuple[int, int, int]:
    """Return how many tests had real commits, how many databases were cloned anew, and refusals."""
    (line,) = [each for each in result.outlines if " tests with real commits, " in each]
    real, cloned, refused = (int(part.split()[0]) for part in line.split(": ")[1].split(", "))
    return real, cloned, refused


def causes(result: pytest.RunResult, kind: str = "cloned anew") -> dict[str, int]:
    """Return what the report counts under a kind of note, and how often."""
    found = {}
    for line in result.outlines:
        if line.startswith(f"{kind}, ") and " x: " in line:
            head, text = line.split(" x: ", 1)
            found[text.rsplit(" (first in ", 1)[0]] = int(head.split(", ")[1])
    return found
