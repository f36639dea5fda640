"""The cache, which in production is Redis."""

from typing import Protocol


class Cache(Protocol):
    """What the app asks of redis.asyncio.Redis."""

    async def get(self, name: str) -> bytes | None:
        """Return what is stored under a name."""

    async def set(self, name: str, value: str) -> None:
        """Store something under a name."""


async def get_cache() -> Cache:
    """Give a request the cache."""
    raise RuntimeError("a test has reached the real Redis")
