"""What the conftest has told about its project, and whether it can be served."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from .record import set_up_error

VERSION = "0.4.1"
PREFIX = "fastapi_conftest"  # of all that is created on a server or on a disk


@dataclass
class Project:
    """Which application the tests are of, and what its database is made of.

    A conftest says so once, when it is imported, by `isolate(...)`. What is wrong with it ends the
    run with one message.

    app: the FastAPI application; None for a library without one.
    sessions: the application's session factories, that of get_db first. Everything on the engines
        behind them works on the database of the test.
    metadata: of the models.
    create_schema: makes the schema, where `metadata.create_all` is not all of it; a function of
        a synchronous connection to a new, empty database.
    schema_files: the files that create_schema reads: migrations, SQL. The schema is built anew
        when one of them changes, or the models, or the file of create_schema.
    driver: of the tests' own server, such as "postgresql+psycopg"; by default the application's.
    engines: further engines of the application, which no factory in `sessions` has. Only those
        need to be listed that connect to another host, port or database.
    real_commits: True to run all tests with real commits; or the node ids, files and folders of
        the tests that need them, as the end of the report prints them.
    allowed: what else the tests may connect to: engines, or names of dialects such as "sqlite".
    """

    app: Any
    _: KW_ONLY
    sessions: Sequence[Any]
    metadata: sa.MetaData
    create_schema: Callable[[sa.Connection], object] | None = None
    schema_files: Sequence[Path] = ()
    driver: str = ""
    engines: Sequence[Any] = ()
    real_commits: bool | Sequence[str | Path] = False
    allowed: Sequence[Any] = ()

    def __post_init__(self) -> None:
        """Remember it as the project, and where its conftest is."""
        caller = sys._getframe(2).f_globals  # noqa: SLF001 - as in the library's namedtuple
        self.conftest = Path(caller["__file__"]).resolve()
        self.driver = self.driver or driver_for(self.sessions)
        _told[:] = [each for each in _told if each.conftest != self.conftest] + [self]
        if _is_checked:  # pytest has found this conftest late
            check_project()

    @property
    def place(self) -> str:
        """Where to correct an argument."""
        return f"in isolate(...) of {self.conftest}"

    @property
    def is_synchronous(self) -> bool:
        """Whether a factory makes synchronous sessions, which rollback cannot serve."""
        return any(not issubclass(it.class_, AsyncSession) for it in self.sessions)

    @property
    def example_url(self) -> str:
        """What TEST_DATABASE_URL should look like."""
        return f"{self.driver}://user:password@host:5432/database"

    def has_real_commits(self, path: Path, nodeid: str) -> bool:
        """Tell whether `real_commits` names this test, its file or a folder above it.

        Its entries may be relative to any folder above the conftest, because where pytest's
        root is depends on how it is called.
        """
        if self.is_synchronous or self.real_commits is True:
            return True
        path, test = path.resolve(), nodeid.partition("::")[2]
        for entry in self.real_commits or ():
            file, _, named = str(entry).partition("::")
            is_named = test.startswith(named) and test[len(named) :][:1] in ("", ":", "[")
            is_named |= named.startswith(f"{test}@")  # as xdist reports it with --dist loadgroup
            may_be = is_named or not named
            if may_be and any(map(path.is_relative_to, places(file, self.conftest.parent))):
                return True
        return False


isolate = Project  # for the conftest


def places(entry: str, folder: Path) -> Iterator[Path]:
    """Yield where an entry may lead: from the folder of the conftest and from each above it."""
    for parent in (folder, *folder.parents):
        yield parent / entry


_told: list[Project] = []
_is_checked: list[bool] = []


def project() -> Project:
    """Return what `isolate` was told."""
    return _told[0]


def driver_for(sessions: Any) -> str:
    """Return the asynchronous driver of the application, or one that is installed."""
    for factory in sessions if isinstance(sessions, list | tuple) else ():
        bind = getattr(factory, "kw", {}).get("bind")
        if bind and bind.dialect.driver in ("asyncpg", "psycopg", "psycopg_async"):
            return str(bind.url.drivername)
    installed = [name for name in ("asyncpg", "psycopg") if find_spec(name)]
    return f"postgresql+{(*installed, 'asyncpg')[0]}"


def check_project() -> None:
    """Refuse what `isolate` was told, where it cannot be served."""
    _is_checked[:] = [True]
    if not _told:
        problem = "The conftest has not called isolate(...)"
        raise set_up_error(problem, "isolate(app, sessions=[SessionLocal], metadata=Base.metadata)")
    if len(_told) > 1:  # each would refuse the other's connections
        files = ", ".join(str(each.conftest) for each in _told)
        problem = f"More than one conftest has called isolate(...) in this run: {files}"
        raise set_up_error(problem, "run them one at a time, as in: pytest THE/FOLDER/OF/ONE")
    for problem, fix in wrong_arguments(project()):
        raise set_up_error(problem, f"{fix}, {project().place}")


def check_hooks() -> None:
    """Refuse a conftest that has not handed over our hooks: its tests would wait for ever."""
    if not _is_checked:
        problem = "pytest does not know the hooks of fastapi_conftest"
        fix = "from fastapi_conftest import pytest_plugin_registered"
        raise set_up_error(problem, f"{fix}, and no hook of that name in {project().conftest}")


def wrong_arguments(told: Project) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the arguments of `isolate`, each with what to write."""
    if told.app is not None and not hasattr(told.app, "dependency_overrides"):
        yield f"{told.app!r} is no FastAPI application", "pass the application, or None"
    if not isinstance(told.sessions, list | tuple) or not told.sessions:
        yield f"sessions is {told.sessions!r}, not a list of factories", "sessions=[SessionLocal]"
        return
    for factory in told.sessions:
        yield from wrong_factory(factory)
    if not isinstance(told.metadata, sa.MetaData):
        yield f"metadata is {told.metadata!r}, not a MetaData", "metadata=Base.metadata"
    if not (told.create_schema is None or callable(told.create_schema)):
        problem = f"create_schema is {told.create_schema!r}, not a function"
        yield problem, "create_schema=the_function, without calling it"
    for name in ("schema_files", "engines", "real_commits", "allowed"):
        is_switch = name == "real_commits" and isinstance(told.real_commits, bool)
        if not (isinstance(it := getattr(told, name), list | tuple) or is_switch):
            yield f"{name} is {it!r}, not a list", f"{name}=[...]"
    yield from wrong_engines(told)
    yield from missing_files(told)


def wrong_factory(factory: Any) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a session factory, with what to write."""
    if not issubclass(getattr(factory, "class_", object), AsyncSession | Session):
        yield f"{factory!r} is no factory of sessions", "list a sessionmaker"
        return
    if not issubclass(factory.class_, AsyncSession) and not factory.kw.get("bind"):
        yield f"{factory!r} is synchronous and has no engine", "sessionmaker(bind=engine)"
    for bind in (factory.kw.get("bind"), *(factory.kw.get("binds") or {}).values()):
        if bind is not None and bind.dialect.name != "postgresql":
            fix = "set what the application finds its database by, such as DATABASE_URL"
            yield f"{factory!r} is bound to {bind.dialect.name}, not to postgresql", fix


def wrong_engines(told: Project) -> Iterator[tuple[str, str]]:
    """Yield what is no engine, and what would let the application connect to its own database."""
    for each in told.engines:
        if not isinstance(each, sa.Engine | AsyncEngine):
            yield f"engines has {each!r}, which is no engine", "list engines"
        elif each.dialect.name != "postgresql":
            yield f"engines has one of {each.dialect.name}", "list it in allowed=[...]"
    for each in told.allowed:  # an engine that reaches the application's is refused by the guard
        if each == "postgresql":
            yield f"allowed has {each!r}, by which the application connects", "remove it"
        elif not (isinstance(each, sa.Engine | AsyncEngine) or str(each).isidentifier()):
            yield f"allowed has {each!r}", 'list engines, or names of dialects such as "sqlite"'


def missing_files(told: Project) -> Iterator[tuple[str, str]]:
    """Yield which files that `isolate` was told of are not there."""
    if told.schema_files == []:
        yield "schema_files is an empty list", "correct the pattern by which it was made"
    for path in told.schema_files:
        if not Path(path).is_file():
            fix = "list files, a folder's as [*FOLDER.rglob('*.py')]"
            yield f"schema_files has {str(path)!r}, which is no file", fix
    if isinstance(told.real_commits, bool):
        return
    for entry in told.real_commits:
        named = str(entry).partition("::")[0]
        if not any(place.exists() for place in places(named, told.conftest.parent)):
            yield f"real_commits has {str(entry)!r}, and there is no such file", "remove the line"
