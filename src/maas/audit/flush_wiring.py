"""Builds the flush: for the worker's task, and for the sweeper beside it."""

from dataclasses import dataclass

from maas.audit.application.flush import FlushService
from maas.audit.infrastructure.backlog import read_stream_age
from maas.audit.infrastructure.inboxes import OutboxInbox, StreamInbox, consumer_name
from maas.audit.infrastructure.ledger import Checkpoint, PostgresLedger, pass_by
from maas.audit.infrastructure.sweeper import Sweeper
from maas.audit.wiring import load_configured_signer, spool_folder
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import DEFAULT_DATA_DIR, Settings

FLUSH_REDIS = {"timeout_ms": 5_000, "pool_size": 4}
"""A batch is megabytes, and nobody waits for the flush: it has longer than a request does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushContext:
    service: FlushService
    redis: RedisGate
    _ledger: PostgresLedger

    async def close(self) -> None:
        await self.redis.close()
        await self._ledger.close()


def build_flush(settings: Settings, *, checkpoint: Checkpoint = pass_by) -> FlushContext:
    """Build the flush of one process, with connections of its own; nothing connects yet.

    `checkpoint` is called with the name of each point a crash test may want to stop at.
    """
    redis = RedisGate(settings.redis.model_copy(update=FLUSH_REDIS))
    ledger = PostgresLedger(
        system_arguments(settings.database),
        signer=load_configured_signer(settings),
        checkpoint=checkpoint,
    )
    service = FlushService(
        stream=StreamInbox(redis, consumer=consumer_name()),
        outbox=OutboxInbox(ledger),
        ledger=ledger,
        batch_size=settings.audit.batch_size,
    )
    return FlushContext(service=service, redis=redis, _ledger=ledger)


async def sweep_for_ever(settings: Settings) -> None:
    """Flush what no tick flushes, until cancelled, over connections of its own."""
    flush = build_flush(settings)
    sweeper = Sweeper(
        system_arguments(settings.database),
        flush=flush.service,
        folder=spool_folder(settings.data_dir or DEFAULT_DATA_DIR),
        stream_age=lambda: read_stream_age(flush.redis),
    )
    try:
        await sweeper.run()
    finally:
        await flush.close()
