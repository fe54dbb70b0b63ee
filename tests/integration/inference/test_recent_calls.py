"""Figures of deployments: of all processes, for an hour, and no trouble without Redis."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest
from pydantic import SecretStr

from maas.inference.application.reports import CallEnd
from maas.inference.infrastructure.recent_calls import (
    KEPT_SECONDS,
    MOST_PENDING,
    RedisRecentCalls,
)
from maas.inference.public import DeploymentId
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import RedisSettings
from maas.user.public import UsageFigures
from tests.factories.routes import DEPLOYMENT
from tests.fakes.clock import FakeClock

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("clean")]

NOON = datetime(2026, 11, 22, 12, 2, tzinfo=UTC)


def make_end(deployment_id: DeploymentId = DEPLOYMENT, *, is_hit: bool = False) -> CallEnd:
    return CallEnd(
        deployment_id=deployment_id,
        outcome="success",
        seconds=2,
        first_byte_seconds=0.5,
        figures=UsageFigures(input_tokens=7, output_tokens=2, cost_nanos=30, currency="EUR"),
        is_hit=is_hit,
    )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
async def recent(redis_gate: RedisGate, clock: FakeClock) -> AsyncIterator[RedisRecentCalls]:
    recent = RedisRecentCalls(redis_gate, clock=clock, every_seconds=3600)
    yield recent
    await recent.close()


async def test_all_processes_add_up_with_what_is_not_sent_yet(
    recent: RedisRecentCalls, redis_gate: RedisGate, clock: FakeClock
) -> None:
    other = RedisRecentCalls(redis_gate, clock=clock, every_seconds=3600)
    other.call_ended(make_end())
    await other.close()
    recent.call_ended(make_end())
    await recent.flush()
    recent.call_ended(make_end(is_hit=True))
    recent.call_refused(DEPLOYMENT, "no-target")
    recent.call_refused(None, "unknown-model")

    found = await recent.find(DEPLOYMENT)

    assert found is not None
    figures = found.figures
    assert found.since == datetime(2026, 11, 22, 11, tzinfo=UTC)
    assert (figures["calls"], figures["success"], figures["hits"]) == (3, 3, 1)
    assert figures["refused"] == 1
    assert (figures["input"], figures["output"], figures.cost()) == (21, 6, {"EUR": 90})
    assert figures.percentile("call", 0.95) == pytest.approx(2, rel=0.051)
    assert figures.percentile("first", 0.5) == pytest.approx(0.5, rel=0.051)
    assert sum(count for name, count in figures.items() if name.startswith("call:")) == 2


async def test_what_is_older_than_an_hour_is_not_told_and_not_kept(
    recent: RedisRecentCalls, redis_gate: RedisGate, clock: FakeClock
) -> None:
    recent.call_ended(make_end())
    await recent.flush()
    keys = [key async for key in redis_gate.client.scan_iter("*inference:recent*")]
    lives = [await redis_gate.client.ttl(key) for key in keys]

    clock.move(timedelta(minutes=58))
    within = await recent.find(DEPLOYMENT)
    clock.move(timedelta(minutes=5))
    after = await recent.find(DEPLOYMENT)

    assert within is not None
    assert after is not None
    assert (within.figures["calls"], after.figures["calls"]) == (1, 0)
    assert len(lives) == 1
    assert KEPT_SECONDS - 10 < lives[0] <= KEPT_SECONDS


async def test_without_redis_nothing_is_told_and_what_was_counted_waits(
    redis_gate: RedisGate, clock: FakeClock
) -> None:
    away = RedisGate(RedisSettings(url=SecretStr("redis://127.0.0.1:1/0")))
    recent = RedisRecentCalls(away, clock=clock, every_seconds=3600)
    recent.call_ended(make_end())
    await recent.flush()
    recent.call_ended(make_end())
    await recent.flush()

    told = await recent.find(DEPLOYMENT)
    recent._redis = redis_gate
    await recent.close()

    assert told is None
    found = await RedisRecentCalls(redis_gate, clock=clock).find(DEPLOYMENT)
    assert found is not None
    assert found.figures["calls"] == 2
    await away.close()


async def test_a_flush_that_is_cut_short_loses_nothing(
    recent: RedisRecentCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def never(*_: object, **__: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    recent.call_ended(make_end())
    with monkeypatch.context() as patch:
        patch.setattr(recent, "_redis", SimpleNamespace(send=never))
        flushing = asyncio.create_task(recent.flush())
        await begun.wait()
        flushing.cancel()
        await asyncio.wait([flushing])
    await recent.flush()

    found = await recent.find(DEPLOYMENT)

    assert found is not None
    assert found.figures["calls"] == 1


async def test_what_waits_is_bounded(redis_gate: RedisGate, clock: FakeClock) -> None:
    recent = RedisRecentCalls(redis_gate, clock=clock, every_seconds=3600)

    for number in range(MOST_PENDING + 50):
        recent.call_ended(make_end(DeploymentId(UUID(int=number))))

    assert len(recent._pending) == MOST_PENDING
    await recent.close()
