"""The folder is built as its map says: each room imports only rooms below it, by name."""

import ast
import re
from functools import cache
from pathlib import Path

import fastapi_conftest
import pytest

from guarantees.project import ROOT

FOLDER = Path(fastapi_conftest.__file__).parent
ROOMS = re.findall(r"^(\w+)  +\w.*$", str(fastapi_conftest.__doc__), re.MULTILINE)  # top to bottom
KNOW_PYTEST = {"hooks", "report", "fixtures", "record"}
# Public since pytest 8.2 at least, the oldest that `make test-versions` runs; what is added to them
# needs a look at pytest's changelog, because that takes a network.
LONG_IN_PYTEST = {
    *("CallInfo", "Config", "FixtureDef", "Function", "Item", "Metafunc", "MonkeyPatch", "Parser"),
    *("Session", "StashKey", "TestReport", "UsageError", "fail", "fixture", "hookimpl", "mark"),
}
CLIENTS = {"httpx", "httpx2", "requests", "starlette", "aiohttp"}


def imports(room: str) -> list[ast.Import | ast.ImportFrom]:
    """Return the imports of a room."""
    tree = ast.parse((FOLDER / f"{room}.py").read_text(encoding="utf-8"))
    return [each for each in ast.walk(tree) if isinstance(each, ast.Import | ast.ImportFrom)]


def packages(room: str) -> set[str]:
    """Return the names of the packages from which a room imports."""
    found = set()
    for each in imports(room):
        if isinstance(each, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in each.names}
        elif not each.level:
            found.add(str(each.module).partition(".")[0])
    return found


def rooms(room: str) -> list[str]:
    """Return the rooms that a room imports from."""
    own = [each for each in imports(room) if isinstance(each, ast.ImportFrom) and each.level]
    return [
        name
        for each in own
        for name in ([each.module] if each.module else [a.name for a in each.names])
        if name
    ]


def test_the_map_has_every_room() -> None:
    assert sorted(ROOMS) == sorted(
        path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__"
    )


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    below = ROOMS[ROOMS.index(room) + 1 :]

    assert [name for name in rooms(room) if name not in below] == []


@pytest.mark.parametrize("room", [*ROOMS, "__init__"])
def test_a_room_imports_by_name(room: str) -> None:
    names = [alias.name for each in imports(room) for alias in each.names]

    assert "*" not in names


@pytest.mark.parametrize("room", [*ROOMS, "__init__"])
def test_only_rooms_about_pytest_know_it(room: str) -> None:
    knows = packages(room) & {"pytest", "_pytest", "pytest_asyncio", "pluggy"}

    assert not knows or room in KNOW_PYTEST


@pytest.mark.parametrize("room", [*ROOMS, "__init__"])
def test_no_room_knows_an_http_client(room: str) -> None:
    assert packages(room) & CLIENTS == set()


@cache
def reached(room: str) -> set[str]:
    """Return the rooms that a room needs, by its own imports and by theirs."""
    return set(rooms(room)).union(*(reached(each) for each in rooms(room)))


def test_the_picture_has_each_import_that_does_not_follow_from_others() -> None:
    page = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    drawn = re.findall(r"^ +(\w+) --> (\w+(?: & \w+)*)$", page, re.MULTILINE)

    needed = {}
    for room in ROOMS:
        own = sorted(set(rooms(room)))
        needed[room] = [each for each in own if not any(each in reached(other) for other in own)]

    assert {room: sorted(to.split(" & ")) for room, to in drawn} == {
        room: to for room, to in needed.items() if to
    }


def test_no_room_uses_a_name_that_the_oldest_pytest_lacks() -> None:
    trees = [ast.parse((FOLDER / f"{room}.py").read_text(encoding="utf-8")) for room in ROOMS]
    attributes = [
        each for tree in trees for each in ast.walk(tree) if isinstance(each, ast.Attribute)
    ]

    used = {
        each.attr
        for each in attributes
        if isinstance(each.value, ast.Name) and each.value.id == "pytest"
    }

    assert used - LONG_IN_PYTEST == set()


def test_the_folder_brings_its_licence_wherever_it_is_copied() -> None:
    licence = (FOLDER / "LICENSE").read_text(encoding="utf-8")

    assert licence == (ROOT / "LICENSE").read_text(encoding="utf-8")
