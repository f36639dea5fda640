"""A way to a server on which each byte is counted."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import URL


class Proxy:
    """Forwards what comes to a port of 127.0.0.1, and counts what goes to the server.

    marks: how many bytes had gone there whenever somebody has connected to the port `control`.
    """

    def __init__(self, server: URL) -> None:
        """Listen on a free port."""
        self.server = server
        self.received = 0
        self.marks: list[int] = []
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.port, self.control = (each.getsockname()[1] for each in self.listeners)
        for target in self.accept, self.mark:
            threading.Thread(target=target, daemon=True).start()

    def connect(self) -> socket.socket:
        """Connect to the server, by its socket among the data or by TCP."""
        if folder := self.server.query.get("host"):
            by_socket = socket.socket(socket.AF_UNIX)
            by_socket.connect(f"{folder}/.s.PGSQL.{self.server.query['port']}")
            return by_socket
        return socket.create_connection((str(self.server.host), self.server.port or 5432))

    def accept(self) -> None:
        """Forward each connection, in both directions."""
        with suppress(OSError):  # the test is over
            while True:
                client, _ = self.listeners[0].accept()
                server = self.connect()
                for work in ((client, server, 1), (server, client, 0)):
                    threading.Thread(target=self.forward, args=work, daemon=True).start()

    def mark(self) -> None:
        """Note the count for whoever asks, and let them go on then."""
        with suppress(OSError):
            while True:
                client, _ = self.listeners[1].accept()
                with client:
                    self.marks.append(self.received)

    def forward(self, one: socket.socket, other: socket.socket, count: int) -> None:
        """Forward one direction to its end."""
        with suppress(OSError), one, other:
            while data := one.recv(65536):
                self.received += len(data) * count
                other.sendall(data)


@contextmanager
def counting(server: URL) -> Iterator[Proxy]:
    """Stand between a client and a server."""
    proxy = Proxy(server)
    yield proxy
    for listener in proxy.listeners:
        listener.close()
