"""Builds the audit context: the writing side for every process, the flush for the worker."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from maas.audit.application.erasure import ErasureService
from maas.audit.application.events import EventComposer
from maas.audit.application.flush import FlushService
from maas.audit.infrastructure.backlog import read_backlog
from maas.audit.infrastructure.erasure import open_personal_fields
from maas.audit.infrastructure.inboxes import OutboxInbox, StreamInbox, consumer_name
from maas.audit.infrastructure.ledger import Checkpoint, PostgresLedger, pass_by
from maas.audit.infrastructure.outbox import OutboxAudit
from maas.audit.infrastructure.queries import PostgresAuditQueries
from maas.audit.infrastructure.recorder import AuditRecorder
from maas.audit.infrastructure.signing import load_signer
from maas.audit.infrastructure.silence import SilentAudit
from maas.audit.infrastructure.stream import EventStream
from maas.shared.domain.call import EventRecorder
from maas.shared.domain.clock import Clock
from maas.shared.infrastructure.database import Database, system_arguments
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import AuditSettings, DatabaseSettings, Settings
from maas.shared.infrastructure.unit_of_work import AuditPort

FLUSH_REDIS = {"timeout_ms": 5_000, "pool_size": 4}
"""A batch is megabytes, and nobody waits for the flush: it has longer than a request does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditContext:
    """What other contexts and the edge get: two ports, and the state routes read from."""

    port: AuditPort
    recorder: EventRecorder
    state: Mapping[str, object]
    _stream: EventStream
    _database: Database
    _redis: RedisGate

    async def backlog(self) -> Mapping[str, float]:
        """Tell what waits to be flushed, and for how long; an outage leaves its figures out."""
        return await read_backlog(self._database, self._redis)

    async def close(self) -> None:
        await self._stream.close()


def build_audit(
    *,
    database: Database,
    redis: RedisGate,
    clock: Clock,
    settings: AuditSettings,
    kick: Callable[[], None] | None = None,
) -> AuditContext:
    """Build the writing side; `kick` asks a worker to flush early, and may block."""
    composer = EventComposer(clock)
    stream = EventStream(redis, kick=kick, kick_at=settings.kick_at)
    port: AuditPort = OutboxAudit(composer=composer, stream=stream)
    recorder: EventRecorder = AuditRecorder(composer=composer, stream=stream, database=database)
    if not settings.enabled:
        port = recorder = SilentAudit()
    return AuditContext(
        port=port,
        recorder=recorder,
        state={"audit_queries": PostgresAuditQueries(database)},
        _stream=stream,
        _database=database,
        _redis=redis,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushContext:
    service: FlushService
    _redis: RedisGate
    _ledger: PostgresLedger

    async def close(self) -> None:
        await self._redis.close()
        await self._ledger.close()


def build_flush(settings: Settings, *, checkpoint: Checkpoint = pass_by) -> FlushContext:
    """Build the flush of one process, with connections of its own; nothing connects yet.

    `checkpoint` is called with the name of each point a crash test may want to stop at.
    """
    redis = RedisGate(settings.redis.model_copy(update=FLUSH_REDIS))
    signer = load_signer(settings.audit, secret_key=settings.secret_key.get_secret_value())
    ledger = PostgresLedger(
        system_arguments(settings.database), signer=signer, checkpoint=checkpoint
    )
    service = FlushService(
        stream=StreamInbox(redis, consumer=consumer_name()),
        outbox=OutboxInbox(ledger),
        ledger=ledger,
        batch_size=settings.audit.batch_size,
    )
    return FlushContext(service=service, _redis=redis, _ledger=ledger)


async def erase_personal_fields(settings: DatabaseSettings, *, clock: Clock) -> int:
    """Erase what the trail knows of those who are gone, over a connection of its own.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    async with open_personal_fields(settings, composer=EventComposer(clock)) as personal:
        return await ErasureService(personal=personal).run()
