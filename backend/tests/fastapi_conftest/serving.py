"""Requests as a server runs them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

Application = Callable[[Any, Any, Any], Awaitable[None]]


def as_served(app: Application) -> Application:
    """Return an ASGI application that gives each request a task and a context of its own.

    A client in the process of the test would call the application in the task of the test: what a
    request sets in a context variable would still be set in the next request, and a session that is
    scoped by the current task would be one for all of them.

    app: an ASGI application.
    """

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        work: Any = app(scope, receive, send)
        await asyncio.create_task(work, context=contextvars.Context())

    return serve
