"""The server that the conftest would use, for everything in this repository that is not a test.

`python -m benchmark.server COMMAND` runs a command with DATABASE_URL set, as `make run` does.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fastapi_conftest.server
from fastapi_conftest import isolate
from fastapi_conftest.embedded import DISK, FOLDER, MEMORY, own_folder, remove_unused
from fastapi_conftest.project import project
from fastapi_conftest.record import SetUpError
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.db import Base, SessionLocal

DEMO_DATABASE = "fastapi_conftest_demo"


def server_url() -> URL:
    """Return the server of TEST_DATABASE_URL, or start the embedded one as the conftest does.

    One that cannot be used ends the program, with the conftest's message.
    """
    tell_the_driver()
    try:
        url, _ = fastapi_conftest.server.server_url()
        asyncio.run(_check(url))
    except SetUpError as error:
        sys.exit(f"ERROR: {error}")
    return url


def tell_the_driver() -> None:
    """Tell the folder which driver the server is for, unless a conftest has."""
    try:
        project()
    except IndexError:
        isolate(None, sessions=[SessionLocal], metadata=Base.metadata)


async def _check(url: URL) -> None:
    engine = create_async_engine(url)
    try:
        await fastapi_conftest.server.check_access(engine)
    finally:
        await engine.dispose()


async def create_database(server: URL, name: str) -> URL:
    """Create an empty database unless it exists, and return its URL."""
    admin = create_async_engine(server, isolation_level="AUTOCOMMIT")
    try:
        async with admin.connect() as connection:
            query = text("SELECT 1 FROM pg_database WHERE datname = :name")
            if not await connection.scalar(query, {"name": name}):
                await connection.execute(text(f'CREATE DATABASE "{name}"'))
    finally:
        await admin.dispose()
    return server.set(database=name)


async def drop_database(server: URL, name: str) -> None:
    """Drop a database that `create_database` made."""
    admin = create_async_engine(server, isolation_level="AUTOCOMMIT")
    try:
        async with admin.connect() as connection:
            await connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
    finally:
        await admin.dispose()


async def server_version(server: URL) -> str:
    """Return the version of PostgreSQL, such as 18.1."""
    engine = create_async_engine(server)
    try:
        async with engine.connect() as connection:
            version = str(await connection.scalar(text("SHOW server_version")))
    finally:
        await engine.dispose()
    return version.partition(" ")[0]


def remove_data() -> None:
    """Remove the data of the embedded server wherever they may be, unless a run uses them."""
    places = [os.environ.get(FOLDER), MEMORY, DISK]
    there = [place for place in places if place and Path(place).expanduser().is_dir()]
    folders = [own_folder(place) for place in there]
    for folder in folders:
        remove_unused(folder)
    if not any(path for folder in folders for path in folder.glob("*/postmaster.pid")):
        for folder in folders:
            shutil.rmtree(folder)


def main() -> int:
    """Run a command on DATABASE_URL or, where that is not set, on the embedded server."""
    environment = dict(os.environ)
    if "DATABASE_URL" not in environment:
        url = asyncio.run(create_database(server_url(), DEMO_DATABASE))
        environment["DATABASE_URL"] = url.render_as_string(hide_password=False)
    try:
        return subprocess.call(sys.argv[1:], env=environment)  # noqa: S603 - the caller's own command
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
