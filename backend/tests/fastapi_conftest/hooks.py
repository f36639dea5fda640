"""What pytest is told: one event loop, the server before the first test, which tests are ours."""

import asyncio
import functools
import gc
import importlib.metadata
import inspect
import re
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from unittest import IsolatedAsyncioTestCase

import pytest
import pytest_asyncio
import sqlalchemy as sa

from .application import connections
from .embedded import explain_full_disk
from .guard import guard, is_down, listening, sever, stand
from .project import PREFIX, check_project, project
from .record import (
    LEFT,
    MARKER,
    REFUSED,
    RETRY,
    Record,
    SetUpError,
    begin,
    running,
    set_up_error,
    wide_fixtures,
)
from .report import RECORD, refusals_fail
from .steps import found, hand_over, schema_once
from .template import Template, sweep_after

LOOP_SCOPE = "asyncio_default_fixture_loop_scope"  # tests are marked one by one
FIXTURES_A_TEST = "show_fixtures_per_test"
OLDEST = {"pytest": (8, 2), "pytest-asyncio": (0, 24), "sqlalchemy": (2, 0, 36)}
ON_ONE_LOOP = pytest.mark.asyncio(loop_scope="session")
_standing = ExitStack()  # the guard, until the process ends: threads and atexit outlive the run


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what CI needs, where a cached template or a second run could hide something."""
    parser.addoption("--rebuild-schema", action="store_true", help="build the schema anew")
    parser.addoption("--real-commits", action="store_true", help=f"run all tests as {MARKER} does")
    parser.addoption("--refusals-fail", action="store_true", help="run no refused test again")


def pytest_configure(config: pytest.Config) -> None:
    """Run all tests and fixtures on one event loop, whatever the project's settings say.

    A connection belongs to one loop: with fixtures on another loop than the tests, the first query
    fails with "attached to a different loop".
    """
    check_versions()
    check_project()
    config.option.asyncio_mode = "auto"
    getini = config.getini
    config.getini = lambda name: "session" if name == LOOP_SCOPE else getini(name)  # type: ignore[method-assign]
    marker = "fresh_database: real connections and real commits, on a database cleaned afterwards"
    config.addinivalue_line("markers", marker)
    if config.pluginmanager.unregister(name="anyio"):  # it would run its tests on other loops
        config.addinivalue_line("markers", "anyio: a test like any other")
    _standing.close()  # of a run before this one, in the same process
    _standing.enter_context(guard(connections()))
    sever()
    _standing.enter_context(listening(sa.Engine, handle_error=explain_error))


def explain_error(context: sa.ExceptionContext) -> None:
    """Say what to do about an error that is the machine's."""
    template = found()
    engine = context.engine.url if context.engine else "postgresql://"
    explain_full_disk(context, sa.make_url(getattr(template, "url", engine)))


def check_versions() -> None:
    """Refuse a Python or a package that is too old."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the projects that it is copied to may be older
        raise set_up_error(
            "fastapi_conftest needs Python 3.11 or newer", "python3.11 -m venv .venv"
        )
    for name, oldest in OLDEST.items():
        number = importlib.metadata.version(name)
        if tuple(map(int, re.findall(r"\d+", number)[: len(oldest)])) < oldest:
            wanted = f"{name}>={'.'.join(map(str, oldest))}"
            raise set_up_error(f"{name} {number} is too old", f"pip install '{wanted}'")


@functools.cache
def folder_of_ours(config: pytest.Config) -> Path | None:
    """Return the folder whose tests are ours, or None where all are: the conftest is a plugin."""
    path = project().conftest
    for plugin in config.pluginmanager.get_plugins():
        if Path(getattr(plugin, "__file__", None) or ".").resolve() == path:
            is_conftest = str(config.pluginmanager.get_name(plugin)).endswith(path.name)
            return path.parent if is_conftest else None
    return None


def is_ours(item: pytest.Item) -> bool:
    """Tell whether a test belongs to this project, and not to another one in the run."""
    folder = folder_of_ours(item.config)
    return folder is None or item.path.resolve().is_relative_to(folder)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Prepare the server before xdist's workers start: only they will know whether it is needed."""
    has_workers = session.config.getoption("tx", default=None)
    is_worker = hasattr(session.config, "workerinput")
    if has_workers and not is_worker and not only_looks(session.config):
        with suppress(SetUpError):
            prepare_schema(session.config)


def only_looks(config: pytest.Config) -> bool:
    """Tell whether no test is to run."""
    return any(config.getoption(name) for name in ("collectonly", "showfixtures", FIXTURES_A_TEST))


def prepare_schema(config: pytest.Config) -> None:
    """Have the schema ready for the first test."""
    if found() is None:
        rebuild = bool(config.getoption("--rebuild-schema", default=False))
        asyncio.run(schema_once(rebuild=rebuild))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # xdist may not be installed
    """Hand the template to an xdist worker, which then neither starts nor checks a server."""
    it = found()  # since pytest_sessionstart
    node.workerinput[PREFIX] = it if isinstance(it, str) else tuple(it or ())


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Drop the databases that workers have left which have crashed: xdist's, and forked ones."""
    has_workers = any(session.config.getoption(name, default=0) for name in ("tx", "workers"))
    if has_workers and isinstance(template := found(), Template):
        with suppress(Exception):  # else the next run does it
            asyncio.run(sweep_after(template))


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which server and schema the tests run on: at once with xdist, else once it is needed."""
    return getattr(found(), "header", None)


pytest_report_collectionfinish = pytest_report_header


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Overrule a test's own loop before pytest-asyncio, up to 1.2, has made a fixture of it."""
    if is_ours(metafunc.definition) and metafunc.definition.get_closest_marker("asyncio"):
        metafunc.definition.add_marker(ON_ONE_LOOP, append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put each async test on the one loop, and each test that needs real commits on their path."""
    everywhere = config.getoption("--real-commits", default=False)
    for item in filter(is_ours, items):
        names: list[str] = getattr(item, "fixturenames", [])
        if pytest_asyncio.is_async_test(item):
            item.add_marker(ON_ONE_LOOP, append=False)
        ours, first = {"engine", "db_transaction"} & {*names}, "overrides_end_with_the_test"
        if ours and first in names and "override_get_db" not in names:
            # Before the fixtures that the test asks for, after those that live longer.
            names.insert(names.index(first) + 1, "override_get_db")
        has_a_loop = issubclass(getattr(item, "cls", None) or object, IsolatedAsyncioTestCase)
        needs = has_a_loop or "fresh_database" in names
        if everywhere or needs or project().has_real_commits(item.path, item.nodeid):
            item.add_marker("fresh_database")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepare the server if a test needs it; refuse a wrong set-up with one message."""
    gc.freeze()  # keeps the garbage collector from searching modules and tests again and again
    if hasattr(session.config, "workerinput"):
        if handed := session.config.workerinput.get(PREFIX):
            hand_over(handed if isinstance(handed, str) else Template(*handed))
        return
    is_needed = any("engine" in getattr(item, "fixturenames", ()) for item in session.items)
    if is_needed and not only_looks(session.config):
        prepare_schema(session.config)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Put the loop back that an asyncio.run() took away: older pytest-asyncios ask for it.

    Tests that are not asynchronous may call it, and destructors.
    """
    for value in pyfuncitem.funcargs.values():
        if isinstance(value, asyncio.AbstractEventLoop):
            asyncio.set_event_loop(value)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Any:
    """Begin the record of a run of a test; a second run starts with real commits."""
    __tracebackhide__ = True
    before = item.stash.get(RECORD, Record())
    refused = [] if refusals_fail(item.config) else before.texts(RETRY)
    again = refused[0] if refused else before.first_refusal
    is_marked = item.get_closest_marker("fresh_database") is not None
    kept = [(kind, text) for kind, text in before.notes if kind not in (REFUSED, RETRY, LEFT)]
    item.stash[RECORD] = begin(Record(is_marked or bool(again), again, kept))
    stand(down=not is_ours(item))
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Any:
    """Note that the test itself runs, and none of its fixtures."""
    __tracebackhide__ = True
    running().is_called = True
    try:
        return (yield)
    finally:
        running().is_called = False


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Any:
    """Remember which fixture is set up that lives longer than a test, to name it in a refusal."""
    __tracebackhide__ = True
    if fixturedef.scope == "function":
        return (yield)
    module = inspect.unwrap(fixturedef.func).__module__
    wide_fixtures.append(f"the {fixturedef.scope} fixture {fixturedef.argname!r} in {module}")
    try:
        return (yield)
    finally:
        wide_fixtures.pop()
        # It ends as it began, whoever's test is the last before that: this is called first then.
        fixturedef.addfinalizer(functools.partial(stand, down=is_down()))
