"""What the gate to Redis takes for an outage."""

import pytest
from redis.asyncio import Redis

from maas.shared.infrastructure.redis import RedisGate, RedisUnavailableError
from tests.conftest import MakeSettings

pytestmark = pytest.mark.integration


async def test_a_connection_reset_while_it_opens_is_an_outage(make_settings: MakeSettings) -> None:
    async def lose_it(_: Redis) -> None:
        # As uvloop says it, seen when Valkey was killed under load.
        raise RuntimeError(
            "unable to perform operation on <TCPTransport closed=True>; the handler is closed"
        )

    gate = RedisGate(make_settings().redis)

    with pytest.raises(RedisUnavailableError):
        await gate.call(lose_it)
    assert gate.is_shut
    await gate.close()


async def test_an_error_that_is_no_outage_is_not_taken_for_one(make_settings: MakeSettings) -> None:
    async def fail(_: Redis) -> None:
        raise RuntimeError("a bug")

    gate = RedisGate(make_settings().redis)

    with pytest.raises(RuntimeError, match="a bug"):
        await gate.call(fail)
    assert not gate.is_shut
    await gate.close()
