"""Builds what is kept of calls: captures, and answers for calls that are the same."""

from collections.abc import Mapping
from dataclasses import dataclass

from maas.inference.application.captures import CaptureQueue, CaptureService
from maas.inference.infrastructure.answer_cache import RedisAnswerCache
from maas.inference.infrastructure.captures import PostgresCaptures
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.sealing_keys import build_sealer
from maas.shared.infrastructure.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepingContext:
    captures: CaptureQueue
    answers: RedisAnswerCache
    state: Mapping[str, object]
    _gate: RedisGate

    async def close(self) -> None:
        await self.captures.close()
        await self.answers.close()
        await self._gate.close()


def build_keeping(settings: Settings, *, database: Database) -> KeepingContext:
    """Build it; nothing connects before something is kept."""
    sealer = build_sealer(settings)
    # A gate of its own, even to the same server: large answers that take too long to get there
    # must not have sessions and limits do without Redis.
    gate = RedisGate(settings.redis.for_cache)
    kept = PostgresCaptures(database, sealer)
    return KeepingContext(
        captures=CaptureQueue(kept),
        answers=RedisAnswerCache(gate, sealer, most_bytes=settings.inference.answer_cache_bytes),
        state={"captures": CaptureService(queries=kept)},
        _gate=gate,
    )
