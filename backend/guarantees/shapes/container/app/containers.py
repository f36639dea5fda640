"""What the application is made of, each part made when it is first asked for."""

from functools import cached_property

from app.db import Database


class Container:
    """Makes the parts of the application."""

    @cached_property
    def database(self) -> Database:
        """The database of the settings."""
        return Database("postgresql+asyncpg://nobody@127.0.0.1:1/production")


container = Container()
