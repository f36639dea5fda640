"""A PostgreSQL of the guarantees' own, and a look at it from outside."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi_conftest.embedded import EmbeddedServer, data_folder
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

DRIVER = "postgresql+asyncpg"


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


def url_of(server: EmbeddedServer) -> URL:
    """Return the address of a server, for the example's driver."""
    return server.url().set(drivername=DRIVER)
