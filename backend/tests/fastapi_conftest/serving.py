"""Requests as a server runs them."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

Application = Callable[[Any, Any, Any], Awaitable[None]]


class as_served:  # noqa: N801 - it reads as the function that it is used as
    """An ASGI application that gives each request a task and a context of its own.

    A client in the process of the test would call the application in the task of the test: what a
    request sets in a context variable would still be set in the next request, and a session that is
    scoped by the current task would be one for all of them.

    app: the application; its attributes are those of what is returned, too.
    """

    def __init__(self, app: Application) -> None:
        """Wrap an application."""
        self.wrapped = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request, a connection or the lifespan."""
        work: Any = self.wrapped(scope, receive, send)
        await asyncio.create_task(work, context=contextvars.Context())

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the application, such as its state."""
        return getattr(self.wrapped, name)
