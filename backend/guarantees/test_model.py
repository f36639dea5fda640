"""The model of larger suites: its arithmetic, and that docs/ci.md shows what it prints."""

import sys

import pytest

from ci import model
from guarantees.test_docs import ROOT

PRICES = model.Prices(serial=1, parallel=3, shard=60, test=0.5, longest=2)


def test_a_run_is_its_start_and_its_share_of_the_tests() -> None:
    assert model.wall_s(100, 1, 1, PRICES) == 1 + 50
    assert model.wall_s(100, 2, 1, PRICES) == 3 + 25
    assert model.wall_s(100, 2, 4, PRICES) == 60 + 3 + 6.25


def test_no_run_is_shorter_than_its_longest_test() -> None:
    assert model.wall_s(100, 8, 8, PRICES) == 60 + 3 + 2


@pytest.mark.parametrize(
    ("tests", "enough"),
    [(2, (1, 1)), (100, (8, 1)), (100_000, (8, 8))],
    ids=["neither", "workers", "workers and shards"],
)
def test_what_gains_less_than_a_tenth_is_not_enough_reason(
    tests: int, enough: tuple[int, int]
) -> None:
    assert model.cheapest(tests, PRICES) == enough


def test_the_page_shows_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["model"])

    model.main()

    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.strip().splitlines())
    assert printed in (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
