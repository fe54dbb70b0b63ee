"""Kept answers in Redis: who gets them, how many there are, and what happens while it is away."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import pytest
from pydantic import SecretStr

from maas.inference.application.answer_cache import KeptAnswer
from maas.inference.domain.answer_key import AnswerKey, answer_key
from maas.inference.infrastructure.answer_cache import ANSWER_PREFIX, RedisAnswerCache
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.sealing import Sealer
from maas.shared.infrastructure.sealing_ring import FixedKeys, RingKey
from maas.shared.infrastructure.settings import RedisSettings
from tests.factories.calls import make_ask, make_route

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("clean")]

OTHER: Final = TenantId(UUID(int=7))
MINUTE: Final = timedelta(minutes=1)
ROOM: Final = 10_000
CANARY: Final = b'{"choices": "canary-of-an-answer"}'
ANSWER: Final = KeptAnswer(
    body=CANARY, request_id="r-é", made_at=datetime(2026, 11, 22, 1, 2, 3, 456789, tzinfo=UTC)
)
KEY: Final = AnswerKey(tenant_id=DEFAULT_TENANT_ID, digest=bytes(32))


def sealer_of(name: str = "a secret of tests alone") -> Sealer:
    return Sealer(FixedKeys([RingKey.derived(name)]))


@pytest.fixture
async def cache(redis_gate: RedisGate) -> AsyncIterator[RedisAnswerCache]:
    cache = RedisAnswerCache(redis_gate, sealer_of(), most_bytes=ROOM)
    yield cache
    await cache.close()


def numbered(number: int) -> AnswerKey:
    return replace(KEY, digest=number.to_bytes(32, "big"))


async def keep(
    cache: RedisAnswerCache, key: AnswerKey, answer: KeptAnswer = ANSWER, *, ms: int = 60_000
) -> None:
    cache.keep(key, answer, keep_for=timedelta(milliseconds=ms))
    await cache.close()


async def test_an_answer_comes_back_as_it_was(cache: RedisAnswerCache) -> None:
    assert await cache.find(KEY) is None

    await keep(cache, KEY)

    assert await cache.find(KEY) == ANSWER


async def test_nobody_elses_call_gets_it(cache: RedisAnswerCache) -> None:
    route = make_route(cache_for=MINUTE)
    ours = answer_key(DEFAULT_TENANT_ID, route, make_ask())
    assert ours is not None
    await keep(cache, ours)

    others = [
        answer_key(OTHER, route, make_ask()),
        answer_key(DEFAULT_TENANT_ID, replace(route, revision=2), make_ask()),
        answer_key(DEFAULT_TENANT_ID, route, make_ask(kind="completions")),
    ]

    assert [await cache.find(key) for key in others if key is not None] == [None] * 3
    assert await cache.find(ours) == ANSWER


async def test_put_where_another_tenant_looks_it_does_not_open(
    cache: RedisAnswerCache, redis_gate: RedisGate
) -> None:
    await keep(cache, KEY)
    there = ANSWER_PREFIX + numbered(1).digest.hex()
    assert await redis_gate.client.copy(ANSWER_PREFIX + KEY.digest.hex(), there)

    assert await cache.find(replace(KEY, tenant_id=OTHER)) is None
    assert await cache.find(numbered(1)) is None


async def test_redis_reads_none_of_it(cache: RedisAnswerCache, redis_gate: RedisGate) -> None:
    await keep(cache, KEY)

    names = await redis_gate.client.keys("*")
    told = [*names, *[await redis_gate.client.dump(name) for name in names]]

    assert len(names) == 4
    assert not any("canary" in repr(each) for each in told)


async def test_the_first_answer_stays(cache: RedisAnswerCache) -> None:
    await keep(cache, KEY)
    await keep(cache, KEY, replace(ANSWER, request_id="r-2"))

    found = await cache.find(KEY)

    assert found is not None
    assert found.request_id == ANSWER.request_id


async def test_its_time_ends(cache: RedisAnswerCache, redis_gate: RedisGate) -> None:
    await keep(cache, KEY, ms=1)

    lives = await redis_gate.client.pttl(ANSWER_PREFIX + KEY.digest.hex())

    # Gone already, or about to be: nobody waits for it here.
    assert lives in {-2, 0, 1}


async def test_beyond_the_room_what_ends_first_goes(
    cache: RedisAnswerCache, redis_gate: RedisGate
) -> None:
    large = replace(ANSWER, body=b"x" * 3000)
    for number, ms in ((1, 70_000), (2, 60_000), (3, 80_000)):
        await keep(cache, numbered(number), large, ms=ms)

    await keep(cache, numbered(4), large, ms=90_000)

    found = [await cache.find(numbered(number)) is not None for number in (1, 2, 3, 4)]
    assert found == [True, False, True, True]
    total = int(await redis_gate.client.get("maas:v1:inference:answers:total") or 0)
    sizes = await redis_gate.client.hvals("maas:v1:inference:answers:sizes")
    assert total == sum(map(int, sizes)) <= ROOM


async def test_what_has_ended_takes_no_room(cache: RedisAnswerCache, redis_gate: RedisGate) -> None:
    large = replace(ANSWER, body=b"x" * 3000)
    for number in range(3):
        await keep(cache, numbered(number), large)
        # As if its time were over: the server forgets it by itself, and its size stands.
        await redis_gate.client.delete(ANSWER_PREFIX + numbered(number).digest.hex())
        await redis_gate.client.zadd(
            "maas:v1:inference:answers:ends",
            {ANSWER_PREFIX + numbered(number).digest.hex(): 1},
        )

    await keep(cache, numbered(9), large)

    assert await cache.find(numbered(9)) is not None
    assert await redis_gate.client.zcard("maas:v1:inference:answers:ends") == 1


async def test_an_evicted_index_is_no_harm(cache: RedisAnswerCache, redis_gate: RedisGate) -> None:
    await keep(cache, KEY)
    await redis_gate.client.delete(
        "maas:v1:inference:answers:ends", "maas:v1:inference:answers:sizes"
    )
    await redis_gate.client.set("maas:v1:inference:answers:total", ROOM)

    await keep(cache, numbered(1))

    assert await cache.find(numbered(1)) == ANSWER


async def test_larger_than_all_the_room_is_not_kept(cache: RedisAnswerCache) -> None:
    await keep(cache, KEY, replace(ANSWER, body=b"x" * ROOM))

    assert await cache.find(KEY) is None


@pytest.mark.parametrize("value", [b"", b"\x01", b"nothing of ours", bytes(200)])
async def test_what_is_none_of_ours_is_no_answer(
    cache: RedisAnswerCache, redis_gate: RedisGate, value: bytes
) -> None:
    await redis_gate.client.set(ANSWER_PREFIX + KEY.digest.hex(), value)

    assert await cache.find(KEY) is None


async def test_under_a_key_that_is_gone_it_is_no_answer(
    cache: RedisAnswerCache, redis_gate: RedisGate
) -> None:
    await keep(cache, KEY)

    assert await RedisAnswerCache(redis_gate, sealer_of("x"), most_bytes=ROOM).find(KEY) is None


async def test_without_redis_there_is_no_answer_and_no_wait() -> None:
    settings = RedisSettings(url=SecretStr("redis://127.0.0.1:1/0"))
    gate = RedisGate(settings)
    cache = RedisAnswerCache(gate, sealer_of(), most_bytes=ROOM)
    began = time.monotonic()

    cache.keep(KEY, ANSWER, keep_for=MINUTE)
    found = await cache.find(KEY)
    await cache.close()

    assert found is None
    # Nobody listens there, which is told at once; the limit is for a slow machine.
    assert time.monotonic() - began < 1
    await gate.close()
