"""Class B: durable before the answer, or no answer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from typing_extensions import override

from maas.audit.infrastructure.stream import STREAM, EventStream
from maas.audit.public import AuditUnavailableError
from maas.audit.wiring import AuditContext, build_audit
from maas.shared.domain.call import Call, serving
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.redis_line import Command
from maas.shared.infrastructure.settings import Settings
from tests.integration.audit.helpers import Trail, acting

pytestmark = pytest.mark.integration

NOWHERE = "redis://127.0.0.1:9/0"
NO_DATABASE = "postgresql://maas_app@127.0.0.1:9/none"


@pytest.fixture
async def cut_off(
    make_settings: Callable[..., Settings], database: Database
) -> AsyncIterator[AuditContext]:
    """Audit of a process that reaches PostgreSQL but not Redis."""
    settings = make_settings(redis={"url": NOWHERE})
    redis = RedisGate(settings.redis)
    yield build_audit(database=database, redis=redis, clock=SystemClock(), settings=settings.audit)
    await redis.close()


async def test_an_event_is_in_the_stream_before_the_answer(
    audit: AuditContext, trail: Trail
) -> None:
    async with acting(audit, "audit.read"):
        pass

    entries = await trail.entries()
    fields = entries[0][1]
    assert len(entries) == 1
    assert set(fields) == {b"v", b"id", b"payload", b"personal", b"duration_ms"}
    assert b'"action":"audit.read"' in fields[b"payload"]


class CountingGate(RedisGate):
    calls = 0

    @override
    async def send(self, commands: Sequence[Command], *, seconds: float) -> list[object]:
        self.calls += 1
        return await super().send(commands, seconds=seconds)


async def test_events_of_many_requests_share_round_trips(
    database: Database, settings: Settings, trail: Trail
) -> None:
    gate = CountingGate(settings.redis)
    audit = build_audit(database=database, redis=gate, clock=SystemClock(), settings=settings.audit)

    async def request(number: int) -> None:
        with serving(Call(request_id=str(number), recorder=audit.recorder)):
            await audit.recorder.record(action="auth.login", outcome="failure", reason="no")

    await asyncio.gather(*(request(number) for number in range(200)))

    assert len(await trail.entries()) == 200
    assert 1 <= gate.calls <= 3
    await gate.close()


async def test_events_nobody_waits_for_go_along_with_one_that_is_waited_for(
    settings: Settings, trail: Trail
) -> None:
    gate = CountingGate(settings.redis)
    stream = EventStream(gate, kick=None, kick_at=1)
    events = [trail.make() for _ in range(3)]

    for event in events[:2]:
        stream.offer(event)
        await asyncio.sleep(0)
    await stream.append(events[2])

    entries = await trail.entries()
    assert [fields[b"id"].decode() for _, fields in entries] == [str(event.id) for event in events]
    assert gate.calls == 1
    await gate.close()


async def test_what_nobody_waits_for_is_sent_all_the_same(settings: Settings, trail: Trail) -> None:
    gate = RedisGate(settings.redis)
    stream = EventStream(gate, kick=None, kick_at=1)

    stream.offer(trail.make())
    await stream.close()

    assert len(await trail.entries()) == 1
    await gate.close()


async def test_without_redis_the_outbox_takes_it(cut_off: AuditContext, trail: Trail) -> None:
    async with acting(cut_off, "auth.login") as scope:
        scope.email = "ada@example.com"

    assert await trail.count("audit_outbox") == 1
    await trail.age()
    await trail.flush().run()
    assert await trail.check_chain() == 1
    email = await trail.superuser.fetchval("SELECT email FROM audit_personal")
    assert email == "ada@example.com"


async def test_without_both_the_answer_is_refused(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(
        redis={"url": NOWHERE}, database={"url": NO_DATABASE, "pool_timeout_seconds": 0.2}
    )
    redis, database = RedisGate(settings.redis), Database(settings.database)
    await database.open()
    audit = build_audit(
        database=database, redis=redis, clock=SystemClock(), settings=settings.audit
    )

    with pytest.raises(AuditUnavailableError) as refused:
        async with acting(audit, "auth.login"):
            pass

    assert refused.value.retry_after is not None
    await redis.close()
    await database.close()


async def test_a_redis_that_refuses_counts_as_down(audit: AuditContext, trail: Trail) -> None:
    # As a full one does, it answers, and takes no entry.
    await trail.redis.client.set(STREAM, "taken")

    async with acting(audit, "audit.read"):
        pass

    assert await trail.count("audit_outbox") == 1


async def test_a_kick_follows_so_many_events(
    database: Database, redis_gate: RedisGate, settings: Settings
) -> None:
    kicks: list[int] = []
    changed = settings.audit.model_copy(update={"kick_at": 3})
    audit = build_audit(
        database=database,
        redis=redis_gate,
        clock=SystemClock(),
        settings=changed,
        kick=lambda: kicks.append(1),
    )

    for _ in range(7):
        async with acting(audit, "audit.read"):
            pass
    await audit.close()

    assert len(kicks) == 2


async def test_the_backlog_is_told(
    audit: AuditContext, cut_off: AuditContext, trail: Trail
) -> None:
    async with acting(audit, "audit.read"):
        pass
    async with acting(cut_off, "audit.read"):
        pass
    await trail.age()

    backlog = await audit.backlog()

    assert backlog["stream_entries"] == 1
    assert backlog["outbox_rows"] == 1
    assert 4 < backlog["outbox_oldest_seconds"] < 60
    assert backlog["dead_letters"] == 0


async def test_switched_off_it_records_nothing(
    database: Database, redis_gate: RedisGate, settings: Settings
) -> None:
    off = settings.audit.model_copy(update={"enabled": False})
    audit = build_audit(database=database, redis=redis_gate, clock=SystemClock(), settings=off)

    async with acting(audit, "audit.read"):
        pass

    assert await redis_gate.client.xlen(STREAM) == 0
