"""A pytest plugin that adds up where the time of a run goes, in categories that people can act on.

It needs nothing but pytest, so that it runs in any project's environment; SQL is a category where
SQLAlchemy is. A second counts once: hashing a password during a request is not counted as a
request. What several tasks do at the same time counts for each of them. The file that PROFILE_FILE
names gets one JSON object.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import pkgutil
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

try:
    from sqlalchemy.engine.default import DefaultDialect
except ImportError:  # the project has another way to its database, or has none
    DefaultDialect = None  # type: ignore[assignment,misc]

DATABASE = re.compile(r"\s*(CREATE|DROP)\s+DATABASE\b", re.IGNORECASE)
DDL = re.compile(r"\s*(CREATE|DROP|ALTER|TRUNCATE)\b", re.IGNORECASE)
# Modules that the tests may have loaded, what to time of them, and what that is.
TIMED = [
    ("argon2", "PasswordHasher.hash", "password hashing"),
    ("argon2", "PasswordHasher.verify", "password hashing"),
    ("bcrypt", "hashpw", "password hashing"),
    ("bcrypt", "checkpw", "password hashing"),
    ("hashlib", "scrypt", "password hashing"),
    ("hashlib", "pbkdf2_hmac", "password hashing"),
    ("time", "sleep", "sleeping"),
    ("asyncio", "sleep", "sleeping"),
    ("httpx", "ASGITransport.handle_async_request", "requests to the app"),
    ("starlette.testclient", "_TestClientTransport.handle_request", "requests to the app"),
    ("httpx", "HTTPTransport.handle_request", "requests to other servers"),
    ("httpx", "AsyncHTTPTransport.handle_async_request", "requests to other servers"),
    ("sqlalchemy.engine.default", "DefaultDialect.connect", "connecting"),
]


class Frame:
    """A piece of work that is going on, and the seconds of the pieces inside it."""

    def __init__(self, category: str) -> None:
        """Start the clock."""
        self.category = category
        self.inside = 0.0
        self.started = time.perf_counter()


INNERMOST: ContextVar[Frame | None] = ContextVar("innermost", default=None)


class Profile:
    """The calls and seconds of each category."""

    def __init__(self) -> None:
        """Begin with the start-up, which has been going on since the process began."""
        self.calls: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.phase: Frame | None = Frame("start-up")
        self.request: Frame | None = None  # the last that has begun, which may have its own context

    @contextmanager
    def frame(self, category: str) -> Iterator[Frame]:
        """Time what happens inside, and tell the work around it."""
        outer = INNERMOST.get() or self.request or self.phase
        if outer and outer.category == "connecting":
            yield outer  # the driver hashes its password, which no test can make cheaper
            return
        mine = Frame(category)
        token, request = INNERMOST.set(mine), self.request
        if category == "requests to the app":
            self.request = mine
        try:
            yield mine
        finally:
            INNERMOST.reset(token)
            self.request = request
            elapsed = time.perf_counter() - mine.started
            self.add(mine, elapsed)
            if outer:
                outer.inside += elapsed

    def add(self, frame: Frame, elapsed: float) -> None:
        """Count what is over."""
        self.calls[frame.category] += 1
        self.seconds[frame.category] += max(0.0, elapsed - frame.inside)

    def timed(self, function: Callable[..., Any], category: str) -> Callable[..., Any]:
        """Return a function that does the same and is timed."""
        if asyncio.iscoroutinefunction(function):

            @functools.wraps(function)
            async def timed_async(*args: Any, **kwargs: Any) -> Any:
                with self.frame(category):
                    return await function(*args, **kwargs)

            return timed_async

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.frame(category):
                return function(*args, **kwargs)

        return timed

    def time_statements(self, name: str) -> None:
        """Time a method of the dialect that runs a statement."""
        method = getattr(DefaultDialect, name)

        @functools.wraps(method)
        def timed(dialect: object, cursor: object, statement: str, *rest: Any) -> Any:
            with self.frame(kind_of(statement)):
                return method(dialect, cursor, statement, *rest)

        setattr(DefaultDialect, name, timed)

    def time_everything(self) -> None:
        """Time all that is loaded and not timed yet."""
        for module, path, category in TIMED:
            if module in sys.modules:
                folder, _, name = f"{module}.{path}".rpartition(".")
                owner = pkgutil.resolve_name(folder)
                function = getattr(owner, name)
                if not hasattr(function, "__wrapped__"):
                    setattr(owner, name, self.timed(function, category))

    def overhead(self) -> float:
        """Return the seconds that all this has cost, by timing as many calls of nothing."""
        count = self.calls.total()
        started = time.perf_counter()
        for _ in range(count):
            with self.frame("nothing"):
                pass
        return time.perf_counter() - started


def kind_of(statement: str) -> str:
    """Return the category of a statement."""
    if DATABASE.match(statement):
        return "creating databases"
    return "DDL" if DDL.match(statement) else "SQL"


class Profiler:
    """The hooks that divide a run into start-up, fixtures and tests."""

    def __init__(self, path: Path, started: float) -> None:
        """Begin; `started` is the time at which the process was asked for."""
        self.path = path
        self.began = started
        self.profile = Profile()
        if DefaultDialect is not None:
            for name in ("do_execute", "do_executemany", "do_execute_no_params"):
                self.profile.time_statements(name)
        self.profile.time_everything()

    def pytest_collection_finish(self) -> None:
        """End the start-up, and time what the tests have imported."""
        if frame := self.profile.phase:
            self.profile.add(frame, time.time() - self.began)
            self.profile.phase = None
        self.profile.time_everything()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Iterator[None]:
        """Time the fixtures."""
        yield from self.phase("fixtures")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        """Time the test itself."""
        yield from self.phase("tests")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Iterator[None]:
        """Time the fixtures."""
        yield from self.phase("fixtures")

    def phase(self, category: str) -> Iterator[None]:
        """Time a phase of a test; work that lost its context, as in a thread, belongs to it."""
        with self.profile.frame(category) as self.profile.phase:
            yield
        self.profile.phase = None

    def pytest_unconfigure(self) -> None:
        """Write the profile; what nothing else accounts for is pytest's own."""
        wall = time.time() - self.began
        profile = self.profile
        profile.seconds["pytest"] = max(0.0, wall - sum(profile.seconds.values()))
        costs = {
            name: {"calls": profile.calls[name], "seconds": seconds}
            for name, seconds in profile.seconds.items()
        }
        result = {"wall_s": wall, "overhead_s": profile.overhead(), "costs": costs}
        self.path.write_text(json.dumps(result), encoding="utf-8")


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Profile one process, also where the project's settings ask for many."""
    if early_config.pluginmanager.hasplugin("xdist"):
        args.append("-n0")


def pytest_configure(config: pytest.Config) -> None:
    """Profile this run."""
    started = float(os.environ["PROFILE_STARTED"])
    config.pluginmanager.register(Profiler(Path(os.environ["PROFILE_FILE"]), started))
