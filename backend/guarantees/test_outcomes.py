"""What the comparison makes of the outcomes of two sides."""

from pathlib import Path

import pytest

from benchmark.outcomes import ABSENT, Sides, bare, is_worse
from benchmark.runs import Case, Run


@pytest.mark.parametrize(
    ("was", "became", "worse"),
    [
        ("passed", "failed", True),
        ("passed", "passed or failed", True),
        ("passed", "skipped", True),
        ("passed", ABSENT, True),
        ("xfailed", "error", True),
        (ABSENT, "failed", True),
        ("failed", "error", False),
        ("failed", ABSENT, False),
        ("passed or failed", "failed", False),
        ("xfailed", "passed", False),
        ("skipped", "passed", False),
    ],
)
def test_only_what_a_reader_would_have_to_mend_is_worse(was: str, became: str, worse: bool) -> None:
    assert is_worse(was, became) is worse


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("a[asyncio]", "a"),
        ("a[asyncio-1]", "a[1]"),
        ("a[1-asyncio-2]", "a[1-2]"),
        ("a[1-asyncio+uvloop]", "a[1]"),
        ("a[asyncio]@group", "a"),
        ("a[trio]", "a[trio]"),
        ("asyncio::a[asyncio_1]", "asyncio::a[asyncio_1]"),
    ],
)
def test_an_id_without_its_event_loop(theirs: str, ours: str) -> None:
    assert bare(theirs) == ours


def test_two_tests_with_one_bare_id_are_two(tmp_path: Path) -> None:
    def runs(*names: str) -> list[Run]:
        return [Run(1, 0, "", tests={name: Case("passed", 0, 0) for name in names})]

    sides = Sides("before", "after", runs("a[asyncio]", "a[asyncio+uvloop]"), runs("a"))

    assert [pair[:2] for pair in sides.pairs] == [("a[asyncio]", "a"), ("a[asyncio+uvloop]", None)]


def test_a_test_that_fails_now_and_then_is_named() -> None:
    runs = [Run(1, 0, "", tests={"a": Case(outcome, 0, 0)}) for outcome in ("passed", "failed")]

    sides = Sides("before", "after", runs, runs)

    assert sides.compared == []
    assert [*sides.different] == [("passed or failed", "passed or failed")]
