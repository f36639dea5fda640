"""Where an engine would connect, and how it connects elsewhere with all else that it was given."""

import getpass
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

# What says where to connect and as whom, in the words of asyncpg and of libpq. All else that an
# engine hands its driver stays: server_settings, options, the sizes of caches.
WHERE = {
    *("dsn", "conninfo", "service", "servicefile", "host", "hostaddr", "port", "database"),
    *("dbname", "user", "password", "passfile", "target_session_attrs", "load_balance_hosts"),
    *("channel_binding", "require_auth", "requirepeer", "requiressl", "direct_tls"),
    "async_creator_fn",  # of SQLAlchemy's adapters, which would call it instead of the driver
}
ABOUT_ENCRYPTION = ("ssl", "gss", "krb", "scram_")  # and what begins like these


class Address(NamedTuple):
    """A database, by the host and port under which a driver looks for it."""

    host: str
    port: str
    database: str

    def __str__(self) -> str:
        """Name it in a message."""
        return f"database {self.database!r} on {self.host or 'the default host'}:{self.port}"


def address_of(to: Mapping[str, Any]) -> Address:
    """Return where a driver would connect with these arguments, after its defaults."""
    user = to.get("user") or os.environ.get("PGUSER") or user_of_the_system()
    database = to.get("database") or to.get("dbname") or os.environ.get("PGDATABASE") or user
    host = to.get("host") or os.environ.get("PGHOST", "")
    port = to.get("port") or os.environ.get("PGPORT", "5432")
    return Address(joined(host), joined(port), str(database))


def user_of_the_system() -> str:
    """Return the name of the user, who may have none in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def joined(value: Any) -> str:
    """Return one text for a host or a port, of which there may be several."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def elsewhere(
    dialect: sa.Dialect, to: Mapping[str, Any], url: sa.URL
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return arguments by which a driver connects to this URL, with all else that it was given."""
    args, own = dialect.create_connect_args(url)
    replaced = {name for name in to if name in WHERE or name.startswith(ABOUT_ENCRYPTION)}
    return args, {**{name: to[name] for name in to.keys() - replaced}, **own}
