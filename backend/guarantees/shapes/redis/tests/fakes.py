"""Stand-ins; with fakeredis installed it is fakeredis.FakeAsyncRedis."""


class FakeRedis:
    """Keeps values in memory."""

    def __init__(self) -> None:
        """Begin empty."""
        self.values = {}

    async def get(self, name):
        """Return what is stored under a name."""
        return self.values.get(name)

    async def set(self, name, value):
        """Store something under a name."""
        self.values[name] = value.encode()
