"""A small project that uses a copy of the real conftest, and a look at the server from outside."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from benchmark.server import create_database, drop_database, server_url
from tests.conftest import EmbeddedServer, data_folder

pytest_plugins = ["pytester"]
collect_ignore = ["example", "shapes", "versions"]  # other projects, which run by themselves

HERE = Path(__file__).parent
# What a run of the inner project must not inherit from the run that it is tested by.
# CI among them: it makes pytest print each message twice.
ISOLATED = (
    "CI",
    "PYTHONPATH",
    "PYTEST_ADDOPTS",
    "PYTEST_XDIST_WORKER",
    "TEST_DATABASE_FOLDER",
    "TEST_DATABASE_URL",
)
REAL_CONFTEST = HERE.parent / "tests" / "conftest.py"


class Database:
    """A database that stands for a developer's own: what TEST_DATABASE_URL names."""

    def __init__(self, url: str) -> None:
        """Look at the server through this URL."""
        self.url = url

    def query(self, statement: str, **bound: object) -> list[Any]:
        """Run one statement in autocommit mode; return its rows, each as a tuple or a scalar."""
        return asyncio.run(self._query(statement, bound))

    async def _query(self, statement: str, bound: dict[str, object]) -> list[Any]:
        engine = create_async_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            result = await connection.execute(text(statement), bound)
            if not result.returns_rows:
                return []
            return [row[0] if len(row) == 1 else tuple(row) for row in result]

    def leftovers(self) -> list[str]:
        """Return the databases of the conftest that are not sealed templates."""
        return self.query(
            "SELECT datname FROM pg_database WHERE datname LIKE 'fastapi\\_conftest\\_%'"
            " AND datallowconn AND datconnlimit = 1000271 ORDER BY datname"
        )

    def templates(self) -> list[str]:
        """Return the names of the sealed templates, the oldest first."""
        return self.query(
            "SELECT datname FROM pg_database WHERE datname LIKE 'fastapi\\_conftest\\_%'"
            " AND datistemplate AND NOT datallowconn ORDER BY oid"
        )


@contextmanager
def own_server(options: str = "") -> Iterator[EmbeddedServer]:
    """Start a server that nobody else uses, and remove it with all its databases."""
    with tempfile.TemporaryDirectory(prefix="fc", dir=data_folder().parent) as folder:
        Path(folder).chmod(0o711)  # as root the server runs as another user
        server = EmbeddedServer(Path(folder, "data"), options)
        server.join()
        try:
            yield server
        finally:
            server.leave()


@pytest.fixture(scope="session")
def server() -> Iterator[URL]:
    """The server of TEST_DATABASE_URL, else one that ends with this process, templates and all."""
    if "TEST_DATABASE_URL" in os.environ:
        yield server_url()
    else:
        with own_server() as server:
            yield server.url


@pytest.fixture(scope="session")
def database(server: URL) -> Iterator[Database]:
    """A developer's database on the server, which must come out of every test as it went in."""
    name = f"developer_{os.getpid()}"
    url = asyncio.run(create_database(server, name))
    yield Database(url.render_as_string(hide_password=False))
    asyncio.run(drop_database(server, name))


class Project:
    """A project with an application, a copy of the real conftest and the tests that are written."""

    def __init__(self, pytester: pytest.Pytester, database: Database) -> None:
        """Lay the project out in a new folder."""
        self.pytester, self.path = pytester, pytester.path
        shutil.copytree(HERE / "example", self.path, dirs_exist_ok=True)
        shutil.copy(REAL_CONFTEST, self.path / "tests" / "conftest.py")
        # Bytecode is known by second and size: a file rewritten at once would run as it was before.
        self.environment = {"TEST_DATABASE_URL": database.url, "PYTHONDONTWRITEBYTECODE": "1"}

    def write(self, path: str, source: str) -> None:
        """Write one of the project's files."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source, encoding="utf-8")

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace text that must be there exactly once."""
        source = (self.path / path).read_text(encoding="utf-8")
        if source.count(old) != 1:
            raise ValueError(f"{path} holds {old!r} {source.count(old)} times, not once")
        self.write(path, source.replace(old, new))

    def extend_schema(self, schema: str) -> None:
        """Have the schema consist of these statements, too."""
        self.write("schema.sql", schema)
        self.replace(
            "tests/conftest.py",
            "SCHEMA_FILES: list[Path] = []",
            "SCHEMA_FILES = [Path('schema.sql')]",
        )
        self.replace(  # by as many lines, for `make coverage`
            "tests/conftest.py",
            "    METADATA.create_all(connection)\n\n\n",
            "    METADATA.create_all(connection)\n"
            "    schema = SCHEMA_FILES[0].read_text()\n"
            "    [connection.exec_driver_sql(each) for each in schema.split(';\\n')]\n",
        )

    def run(self, *arguments: str) -> pytest.RunResult:
        """Run pytest in a process of its own, as an adopter would."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ISOLATED:
                patch.delenv(name, raising=False)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            return self.pytester.runpytest_subprocess(*arguments)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start pytest in a process group of its own, and return at once."""
        kept = {name: value for name, value in os.environ.items() if name not in ISOLATED}
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "pytest", "-rP", "-p", "no:cacheprovider", *arguments],
            cwd=self.path,
            env=kept | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.fixture
def project(pytester: pytest.Pytester, database: Database) -> Project:
    """A new project on the developer's server."""
    return Project(pytester, database)


@pytest.fixture
def spare_database(database: Database) -> Iterator[str]:
    """The URL of an empty database, for what creates tables in the database that it is given."""
    server, name = make_url(database.url), f"spare_{os.getpid()}"
    url = asyncio.run(create_database(server, name))
    yield url.render_as_string(hide_password=False)
    asyncio.run(drop_database(server, name))


def code(page: Path, language: str) -> list[str]:
    """Return the code blocks of a language on a page of the docs."""
    blocks = rf"^```{language}\n(.*?)^```$"
    return re.findall(blocks, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
