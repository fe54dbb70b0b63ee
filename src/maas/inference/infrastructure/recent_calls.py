"""Figures of deployments in Redis, added up from all processes, for an hour or a little more.

They are there to look at: what was used and what it cost, the ledger knows. A process that is
killed takes some seconds of them with it, and an outage may count a few calls twice.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, cast

from typing_extensions import override

from maas.inference.application.deployment_metrics import RecentCalls, RecentCallsReader
from maas.inference.application.reports import CallEnd, CallReports
from maas.inference.domain.figures import Figures
from maas.inference.public import DeploymentId
from maas.shared.domain.clock import Clock
from maas.shared.infrastructure.redis import (
    KEY_PREFIX,
    RedisGate,
    RedisUnavailableError,
)
from maas.shared.infrastructure.redis_line import Command

SLOT_SECONDS: Final = 300
SLOTS: Final = 12
"""Whole ones, beside the one that is under way."""

KEPT_SECONDS: Final = SLOT_SECONDS * (SLOTS + 2)
MOST_PENDING: Final = 2_000
"""Deployments and slots that wait for Redis; beyond these, the oldest are let go."""

SEND_SECONDS: Final = 1.0

_METERS: Final = ("input", "cached", "output", "reasoning")


class RedisRecentCalls(CallReports, RecentCallsReader):
    """Counts in memory, and adds that to Redis every few seconds: `close()` it."""

    def __init__(self, redis: RedisGate, *, clock: Clock, every_seconds: float = 5) -> None:
        self._redis = redis
        self._clock = clock
        self._every_seconds = every_seconds
        self._pending: dict[tuple[DeploymentId, int], Figures] = {}
        self._task: asyncio.Task[None] | None = None

    @override
    def call_ended(self, end: CallEnd) -> None:
        _add(self._figures(end.deployment_id), end)

    @override
    def call_refused(self, deployment_id: DeploymentId | None, code: str) -> None:
        if deployment_id is not None:
            self._figures(deployment_id)["refused"] += 1

    def _figures(self, deployment_id: DeploymentId) -> Figures:
        key = (deployment_id, self._slot())
        figures = self._pending.get(key)
        if figures is None:
            figures = self._pending[key] = Figures()
            if len(self._pending) > MOST_PENDING:
                del self._pending[next(iter(self._pending))]
        if self._task is None:
            self._task = asyncio.create_task(self._flush_later(), name="recent-calls")
        return figures

    @override
    async def find(self, deployment_id: DeploymentId) -> RecentCalls | None:
        now = self._slot()
        slots = range(now - SLOTS, now + 1)
        try:
            answers = await self._redis.send(
                [("HGETALL", _key(deployment_id, slot)) for slot in slots], seconds=SEND_SECONDS
            )
        except RedisUnavailableError:
            return None
        figures = Figures()
        for answer in answers:
            for name, count in cast("dict[bytes, bytes]", answer).items():
                figures[name.decode()] += int(count)
        for slot in slots:
            figures.update(self._pending.get((deployment_id, slot), Figures()))
        since = datetime.fromtimestamp(slots[0] * SLOT_SECONDS, UTC)
        return RecentCalls(since=since, figures=figures)

    async def flush(self) -> None:
        """Add to Redis what was counted; what it does not take waits for the next time."""
        pending, self._pending = self._pending, {}
        if not pending:
            return
        commands: list[Command] = []
        for (deployment_id, slot), figures in pending.items():
            key = _key(deployment_id, slot)
            commands += [("HINCRBY", key, name, count) for name, count in figures.items()]
            commands.append(("EXPIRE", key, KEPT_SECONDS))
        is_sent = False
        try:
            with suppress(RedisUnavailableError):
                await self._redis.send(commands, seconds=SEND_SECONDS)
                is_sent = True
        finally:
            # Also of a flush that `close` cut short.
            if not is_sent:
                for key_of, figures in self._pending.items():
                    pending.setdefault(key_of, Figures()).update(figures)
                self._pending = pending

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        await self.flush()

    async def _flush_later(self) -> None:
        while True:
            await asyncio.sleep(self._every_seconds)
            await self.flush()

    def _slot(self) -> int:
        return int(self._clock.now().timestamp()) // SLOT_SECONDS


def _add(figures: Figures, end: CallEnd) -> None:
    used = end.figures
    counts = (used.input_tokens, used.cached_tokens, used.output_tokens, used.reasoning_tokens)
    figures["calls"] += 1
    figures[end.outcome] += 1
    for meter, count in zip(_METERS, counts, strict=True):
        if count:
            figures[meter] += count
    if used.currency is not None and used.cost_nanos:
        figures[f"cost:{used.currency}"] += used.cost_nanos
    if end.is_hit:
        figures["hits"] += 1
        return
    figures.add_time("call", end.seconds)
    if end.first_byte_seconds is not None:
        figures.add_time("first", end.first_byte_seconds)


def _key(deployment_id: DeploymentId, slot: int) -> str:
    return f"{KEY_PREFIX}inference:recent:{deployment_id}:{slot}"
