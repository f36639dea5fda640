"""What the end of a run says about its databases."""

from ast import literal_eval

import pytest

ADVICE = "*With @pytest.mark.fresh_database the test has real connections and real commits*"
UNCOMMITTED = "another session of this test holds changes, or an error."
MADE_SETTINGS = "another session of this test has made settings, and not committed yet."
ENDS = "this would end the transaction of the test, or fire its deferred triggers now."
CUT_OFF = "work after a cancelled statement: in production its connection is closed."
DRIVER = "the driver's own connection."
CURSOR = "a cursor on the server, which reads between other sessions' statements."
LOST = "the connection of the test was lost:"


HEAD = " tests ran again. With these lines in isolate(...) they run once:"


def ran_again(result: pytest.RunResult) -> dict[str, str]:
    """Return the tests that the end of the report says ran again, without their file, and why."""
    heads = [number for number, line in enumerate(result.outlines) if line.endswith(HEAD)]
    found: dict[str, str] = {}
    reason = ""
    for line in result.outlines[heads[0] + 2 :] if heads else []:
        if line.startswith("        # "):
            reason = line.strip().removeprefix("# ")
        elif line.startswith("        "):
            found[literal_eval(line.strip().rstrip(",")).split("::", 1)[1]] = reason
        else:
            break
    if heads:
        assert result.outlines[heads[0]] == f"{len(found)}{HEAD}", found  # noqa: S101
    return found


def how_many_ran_again(result: pytest.RunResult) -> int:
    """Return how many tests ran again in a run that had better begin with real commits."""
    (line,) = [each for each in result.outlines if "isolate(..., real_commits=True)" in each]
    return int(line.split()[0])


def lines_to_paste(result: pytest.RunResult) -> str:
    """Return the argument of isolate that the end of the report prints."""
    begin = result.outlines.index("    real_commits=[")
    end = result.outlines.index("    ],")
    return "\n".join(result.outlines[begin : end + 1])


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
