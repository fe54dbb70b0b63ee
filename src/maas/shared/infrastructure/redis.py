"""Redis or Valkey: short time-outs, and a breaker so that a dead server costs nothing."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from maas.shared.domain.errors import UnavailableError
from maas.shared.infrastructure.settings import RedisSettings

T = TypeVar("T")

KEY_PREFIX = "maas:v1:"
"""Every key starts with this; the version is of the layout, and code reads n and n-1."""

COOL_DOWN_SECONDS = 1.0


class RedisUnavailableError(UnavailableError):
    code = "redis-unavailable"
    title = "Redis does not answer"


class RedisGate:
    """Guards calls to Redis: bounded in time, refused at once while it is known to be down.

    After a failure the gate stays shut for a second; then the next call tries again.
    """

    def __init__(self, settings: RedisSettings) -> None:
        timeout = settings.timeout_ms / 1000
        self.client: Redis = Redis(
            connection_pool=BlockingConnectionPool.from_url(
                settings.url.get_secret_value(),
                max_connections=settings.pool_size,
                timeout=timeout,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
                protocol=3,
            )
        )
        self._shut_until = 0.0

    @property
    def is_shut(self) -> bool:
        return time.monotonic() < self._shut_until

    async def call(self, operation: Callable[[Redis], Awaitable[T]]) -> T:
        """Run one operation.

        Raises:
            RedisUnavailableError: it failed or timed out, now or within the last second.
        """
        if self.is_shut:
            raise RedisUnavailableError
        try:
            return await operation(self.client)
        except (RedisError, OSError, TimeoutError) as exc:
            self._shut_until = time.monotonic() + COOL_DOWN_SECONDS
            raise RedisUnavailableError from exc

    async def close(self) -> None:
        await self.client.aclose(close_connection_pool=True)
