"""The fixtures of the guarantees: a small project, and the server that it is tested on."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi_conftest.embedded import data_folder
from sqlalchemy import URL, make_url

from benchmark.server import create_database, drop_database, server_url
from guarantees.project import Project
from guarantees.repository import Repository, bare_python, with_a_bit_of_everything
from guarantees.servers import Database, own_server, url_of

collect_ignore = ["example", "shapes", "versions"]  # other projects, which run by themselves


@pytest.fixture(scope="session")
def server() -> Iterator[URL]:
    """The server of TEST_DATABASE_URL, else one that ends with this process, templates and all."""
    if "TEST_DATABASE_URL" in os.environ:
        yield server_url()
    else:
        with own_server() as server:
            yield url_of(server)


@pytest.fixture(scope="session")
def database(server: URL) -> Iterator[Database]:
    """A developer's database on the server, which must come out of every test as it went in."""
    name = f"developer_{os.getpid()}"
    url = asyncio.run(create_database(server, name))
    yield Database(url.render_as_string(hide_password=False))
    asyncio.run(drop_database(server, name))


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    """A new project on the developer's server."""
    return Project(tmp_path, database)


@pytest.fixture(params=["asyncpg", "psycopg"])
def each_driver(project: Project, request: pytest.FixtureRequest) -> str:
    """The project, by each asynchronous driver."""
    driver: str = request.param
    project.use_driver(driver)
    return driver


@pytest.fixture
def spare_database(database: Database) -> Iterator[str]:
    """The URL of an empty database, for what creates tables in the database that it is given."""
    server, name = make_url(database.url), f"spare_{os.getpid()}"
    url = asyncio.run(create_database(server, name))
    yield url.render_as_string(hide_password=False)
    asyncio.run(drop_database(server, name))


@pytest.fixture
def folder(project: Project) -> Iterator[Path]:
    """The folder of a server of the test's own, with a path short enough for a socket."""
    chosen = Path(tempfile.mkdtemp(prefix="fc", dir=data_folder().parent))
    chosen.chmod(0o711)  # as root the server runs as another user
    del project.environment["TEST_DATABASE_URL"]
    project.environment["TEST_DATABASE_FOLDER"] = str(chosen)
    yield chosen / f"fastapi_conftest-{os.geteuid()}"
    shutil.rmtree(chosen)


@pytest.fixture(scope="session")
def their_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has pytest and nothing else."""
    return bare_python(tmp_path_factory.mktemp("environment") / ".venv")


@pytest.fixture
def repository(tmp_path: Path, their_python: Path) -> Repository:
    """Somebody's repository, with a suite that has a bit of everything."""
    return with_a_bit_of_everything(tmp_path, their_python)
