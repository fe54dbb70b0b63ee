"""The early tick: a worker gets it, and nobody waits for a broker that does not take it."""

import asyncio
import json
import socket
import time
from collections.abc import Callable

import pytest
from kombu.exceptions import OperationalError
from redis.asyncio import Redis

from maas.audit.wiring import build_audit
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import RedisSettings, Settings
from maas.shared.infrastructure.task_queue import TaskSender
from maas.worker import create_worker
from tests.integration.audit.helpers import acting

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


def sender_to(settings: RedisSettings) -> TaskSender:
    return TaskSender(settings, task="audit.flush", queue="audit")


async def test_a_tick_reaches_the_queue_the_workers_read(
    settings: Settings, redis_gate: RedisGate, database: Database
) -> None:
    await asyncio.to_thread(sender_to(settings.redis).send)

    waiting = await redis_gate.client.llen("maas:v1:celery:maas.v1.audit")
    assert waiting == 1
    message = json.loads(await redis_gate.client.lindex("maas:v1:celery:maas.v1.audit", 0) or "")
    assert message["headers"]["task"] == "audit.flush"
    assert message["headers"]["expires"] is not None

    def consume() -> str:
        with create_worker(settings).connection_for_read() as connection:
            queue = connection.SimpleQueue("maas.v1.audit")
            received = queue.get(timeout=30)
            received.ack()
            queue.close()
            return str(received.headers["task"])

    assert await asyncio.to_thread(consume) == "audit.flush"


def test_a_dead_broker_is_told_of_soon() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(1)
        for port in (9, mute.getsockname()[1]):
            settings = RedisSettings.model_validate({"url": f"redis://127.0.0.1:{port}/0"})
            begun = time.monotonic()

            with pytest.raises(OperationalError):
                sender_to(settings).send()

            assert time.monotonic() - begun < 10


async def test_a_broker_that_hangs_delays_no_request(
    make_settings: Callable[..., Settings], database: Database, redis_gate: RedisGate
) -> None:
    settings = make_settings()
    kick_each = settings.audit.model_copy(update={"kick_at": 1})
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(1)
        broker = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        sender = sender_to(settings.redis.model_copy(update={"broker_url": make_secret(broker)}))
        audit = build_audit(
            database=database,
            redis=redis_gate,
            clock=SystemClock(),
            settings=kick_each,
            kick=sender.send,
        )

        begun = time.monotonic()
        for _ in range(5):
            async with acting(audit, "auth.login"):
                pass
        assert time.monotonic() - begun < 8
        await audit.close()


def make_secret(url: str) -> object:
    return RedisSettings.model_validate({"url": url}).url


async def test_the_stream_has_its_event_either_way(
    settings: Settings, database: Database, redis_gate: RedisGate
) -> None:
    def fail() -> None:
        raise OSError

    audit = build_audit(
        database=database,
        redis=redis_gate,
        clock=SystemClock(),
        settings=settings.audit.model_copy(update={"kick_at": 1}),
        kick=fail,
    )
    client: Redis = redis_gate.client

    async with acting(audit, "auth.login"):
        pass
    await audit.close()

    assert await client.xlen("maas:v1:audit:events") == 1
