"""Builds what watches calls: figures for Prometheus, and those of each deployment in Redis."""

from dataclasses import dataclass

from maas.inference.infrastructure.metrics import CallMetrics
from maas.inference.infrastructure.recent_calls import RedisRecentCalls
from maas.shared.domain.clock import Clock
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import RedisSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchingContext:
    metrics: CallMetrics
    recent: RedisRecentCalls
    _gate: RedisGate

    async def close(self) -> None:
        await self.recent.close()
        await self._gate.close()


def build_watching(redis: RedisSettings, *, clock: Clock) -> WatchingContext:
    """Build it; nothing connects before the first call has ended."""
    # Figures can wait, and what sessions and limits go by must not wait for them.
    gate = RedisGate(redis.model_copy(update={"url": redis.cache_url or redis.url}))
    return WatchingContext(
        metrics=CallMetrics(), recent=RedisRecentCalls(gate, clock=clock), _gate=gate
    )
