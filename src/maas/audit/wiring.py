"""Builds the audit context: the writing side for every process, the flush for the worker."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from maas.audit.application.deliveries import DeliveryService
from maas.audit.application.erasure import ErasureService
from maas.audit.application.events import EventComposer, QueuedEvent
from maas.audit.application.export import ExportService
from maas.audit.application.export_slots import ExportSlots
from maas.audit.application.export_tables import TableService
from maas.audit.application.exports import Exports
from maas.audit.application.heads import HeadService
from maas.audit.application.rules import RuleService, WatchUnitOfWork
from maas.audit.application.statistics import StatisticsService
from maas.audit.application.verification import (
    Progress,
    Verdict,
    VerificationService,
    VerifyOptions,
    show_no_progress,
)
from maas.audit.application.watch import WatchService
from maas.audit.application.webhooks import WebhookService
from maas.audit.domain.checkpoint import SignedCheckpoint
from maas.audit.domain.proof import Proof
from maas.audit.infrastructure.alerts import PostgresAlertQueries
from maas.audit.infrastructure.backlog import (
    BacklogWatch,
    is_stream_past,
    read_backlog,
)
from maas.audit.infrastructure.checkpoints import read_newest
from maas.audit.infrastructure.dedup import prune_dedup
from maas.audit.infrastructure.deliveries import open_deliveries
from maas.audit.infrastructure.erasure import (
    Elsewhere,
    forget_nowhere_else,
    open_personal_fields,
)
from maas.audit.infrastructure.evidence import PostgresEvidence, read_proof
from maas.audit.infrastructure.export_reader import PostgresExportReader
from maas.audit.infrastructure.heads import open_head_file
from maas.audit.infrastructure.ledger import Checkpoint, pass_by
from maas.audit.infrastructure.named_people import blacken_torn_spools
from maas.audit.infrastructure.outbox import EventWriter, OutboxAudit, OutboxTrail, keep_in_outbox
from maas.audit.infrastructure.parquet_encoder import open_encoder
from maas.audit.infrastructure.queries import PostgresAuditQueries
from maas.audit.infrastructure.recorded import PostgresRecordedEvents
from maas.audit.infrastructure.recorder import AuditRecorder, Gap
from maas.audit.infrastructure.signing import Ed25519Signer, is_signed_by, load_signer
from maas.audit.infrastructure.silence import SilentAudit
from maas.audit.infrastructure.spool import Spool
from maas.audit.infrastructure.statistics import PostgresRollups
from maas.audit.infrastructure.stream import EventStream
from maas.audit.infrastructure.trail_reader import PostgresTrailReader, open_snapshot
from maas.audit.infrastructure.upkeep import Upkeep
from maas.audit.infrastructure.watch import open_watch, watch_key
from maas.audit.infrastructure.webhooks import SqlWatchUnitOfWork
from maas.audit.infrastructure.webhooks_queries import PostgresWebhookQueries
from maas.audit.infrastructure.webhooks_sender import (
    WebhookSecrets,
    WebhookSender,
    complain_about,
    make_url_digest,
)
from maas.audit.public import RecordedEvents, Trail
from maas.shared.domain.call import EventRecorder
from maas.shared.domain.clock import Clock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.outgoing import OutgoingClient
from maas.shared.infrastructure.outgoing_targets import Targets
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.sealing_keys import build_sealer
from maas.shared.infrastructure.settings import (
    DEFAULT_DATA_DIR,
    AuditSettings,
    DatabaseSettings,
    Settings,
)
from maas.shared.infrastructure.unit_of_work import AuditPort, IdempotencyPort


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditContext:
    """What other contexts and the edge get: their ports, and the state routes read from."""

    port: AuditPort
    trail: Trail
    recorded: RecordedEvents
    recorder: EventRecorder
    state: Mapping[str, object]
    upkeep: Upkeep
    watch: BacklogWatch
    gap: Gap
    _stream: EventStream
    _spool: Spool | None

    async def backlog(self) -> Mapping[str, float]:
        """Tell what waits to be flushed, and for how long; an outage leaves its figures out."""
        return await self.watch.read()

    async def close(self) -> None:
        await self.upkeep.stop()
        await self._stream.close()
        if self._spool is not None:
            await self._spool.close()


def build_audit(
    *,
    database: Database,
    redis: RedisGate,
    clock: Clock,
    settings: AuditSettings,
    data_dir: Path | None = None,
    kick: Callable[[], None] | None = None,
    signer: Ed25519Signer | None = None,
) -> AuditContext:
    """Build the writing side; without a data folder it has no file to fall back on.

    `kick` asks a worker to flush early, and may block; `signer` signs exports.
    """
    composer, gap = EventComposer(clock), Gap()
    stream = EventStream(redis, kick=kick, kick_at=settings.kick_at)
    folder = None if data_dir is None else spool_folder(data_dir)
    spool = None if folder is None else Spool(folder, max_bytes=settings.spool_max_bytes)
    port: AuditPort = OutboxAudit(composer=composer, stream=stream)
    audit_recorder = AuditRecorder(
        composer=composer, stream=stream, database=database, spool=spool, gap=gap
    )
    recorder: EventRecorder = audit_recorder

    async def keep(events: Sequence[QueuedEvent]) -> None:
        await keep_in_outbox(database, *events)

    async def read() -> Mapping[str, float]:
        figures = await read_backlog(database, redis, folder)
        return {**figures, "gap_events": float(gap.count)}

    watch = BacklogWatch(read, high_water=settings.high_water)
    if not settings.enabled:
        port = recorder = SilentAudit()
    return AuditContext(
        port=port,
        trail=OutboxTrail(composer=composer, stream=stream, is_on=settings.enabled),
        recorded=PostgresRecordedEvents(database),
        recorder=recorder,
        state={
            "audit_queries": PostgresAuditQueries(database),
            "audit_evidence": PostgresEvidence(database),
            "audit_statistics": StatisticsService(rollups=PostgresRollups(database), clock=clock),
            "audit_exports": _exports(database, clock=clock, settings=settings, signer=signer),
        },
        upkeep=Upkeep(spool=spool, folder=folder, keep=keep, recorder=audit_recorder, watch=watch),
        watch=watch,
        gap=gap,
        _stream=stream,
        _spool=spool,
    )


def _exports(
    database: Database, *, clock: Clock, settings: AuditSettings, signer: Ed25519Signer | None
) -> Exports:
    reader = PostgresExportReader(database)
    return Exports(
        lines=ExportService(reader=reader, clock=clock, signer=signer),
        tables=TableService(reader=reader, open_encoder=open_encoder),
        slots=ExportSlots(settings.exports_at_once),
    )


def spool_folder(data_dir: Path) -> Path:
    return data_dir / "audit" / "spool"


def build_event_composer(clock: Clock) -> EventComposer:
    """Build what makes events that another context's functions write beside their rows."""
    return EventComposer(clock)


def build_event_writer(clock: Clock) -> EventWriter:
    """Build what writes events of no request beside the rows they are of."""
    return EventWriter(EventComposer(clock))


async def prune(settings: DatabaseSettings) -> bool:
    """Forget event ids of over a week ago; tell whether more are left to forget.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    _, has_more = await prune_dedup(settings)
    return has_more


def load_configured_signer(settings: Settings) -> Ed25519Signer:
    """Take the signing key that is set, else the one that follows from the secret key.

    Raises:
        InvalidSettingsError: a key is set, and cannot be read.
    """
    return load_signer(settings.audit, secret_key=settings.secret_key.get_secret_value())


def build_head_service(settings: Settings) -> HeadService:
    """Build what notes the newest checkpoint outside of the database; nothing connects yet."""
    data_dir = settings.data_dir or DEFAULT_DATA_DIR

    async def newest() -> SignedCheckpoint | None:
        return await read_newest(settings.database)

    return HeadService(
        newest=newest, file=open_head_file(settings.audit.head_file, data_dir=data_dir)
    )


async def prove_event(settings: Settings, event_id: UUID) -> Proof:
    """Prove that any tenant's event is in the log.

    Raises:
        AuditEventNotFoundError: it is not, or not yet.
        LogUnavailableError: PostgreSQL does not answer.
    """
    async with open_snapshot(settings.database) as connection:
        return await read_proof(connection, event_id, tenant_id=None)


async def verify_trail(
    settings: Settings,
    options: VerifyOptions,
    *,
    on_progress: Progress = show_no_progress,
) -> Verdict:
    """Check the trail in one snapshot, over a connection of its own.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    async with open_snapshot(settings.database) as connection:
        service = VerificationService(
            reader=PostgresTrailReader(connection),
            is_signed=is_signed_by,
            on_progress=on_progress,
        )
        return await service.verify(options)


async def erase_personal_fields(
    settings: DatabaseSettings,
    *,
    clock: Clock,
    redis: RedisGate | None = None,
    folder: Path | None = None,
    elsewhere: Elsewhere = forget_nowhere_else,
) -> int:
    """Erase what the trail knows of those who are gone, over a connection of its own.

    With Redis, it is over only once the stream has nothing that is older; with a folder, torn
    spools in it are seen to; `elsewhere` is told the person, names and e-mails to be forgotten.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """

    async def settled(since: datetime) -> bool:
        return redis is None or await is_stream_past(redis, since)

    async def forget(person: UUID, names: Sequence[str], emails: Sequence[str]) -> None:
        if folder is not None and (names or emails):
            await asyncio.to_thread(blacken_torn_spools, folder, [*names, *emails])
        await elsewhere(person, names, emails)

    async with open_personal_fields(
        settings, composer=EventComposer(clock), elsewhere=forget, settled=settled
    ) as personal:
        return await ErasureService(personal=personal).run()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertingContext:
    """What administrators set of the watch, and the client that sends their tests."""

    state: Mapping[str, object]
    _outgoing: OutgoingClient

    async def close(self) -> None:
        await self._outgoing.close()


def build_alerting(
    settings: Settings,
    *,
    database: Database,
    audit: AuditPort,
    idempotency: IdempotencyPort,
    clock: Clock,
) -> AlertingContext:
    """Build rules and webhooks as the routes have them; nothing connects yet."""

    def unit_of_work() -> WatchUnitOfWork:
        return SqlWatchUnitOfWork(database.engine, audit=audit, idempotency=idempotency)

    targets = Targets.for_webhooks(settings.outgoing)
    outgoing = OutgoingClient(targets, ca_file=settings.outgoing.ca_file)
    secrets = WebhookSecrets(build_sealer(settings))
    queries = PostgresWebhookQueries(database)
    webhooks = WebhookService(
        unit_of_work=unit_of_work,
        queries=queries,
        secrets=secrets,
        sender=WebhookSender(outgoing, secrets),
        complain=lambda url: complain_about(targets, url),
        digest=make_url_digest(settings.secret_key.get_secret_value()),
        clock=clock,
    )
    return AlertingContext(
        state={
            "audit_alerts": PostgresAlertQueries(database),
            "audit_rules": RuleService(unit_of_work=unit_of_work, clock=clock),
            "audit_webhooks": webhooks,
            "audit_webhook_queries": queries,
        },
        _outgoing=outgoing,
    )


async def watch_trail(settings: Settings, *, clock: Clock, checkpoint: Checkpoint = pass_by) -> int:
    """Judge what is new in the log, over a connection of its own; tell how many alerts it raised.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    key = watch_key(settings.secret_key.get_secret_value())
    async with open_watch(settings.database, key=key, clock=clock, checkpoint=checkpoint) as log:
        return await WatchService(log=log).run()


async def deliver_alerts(
    settings: Settings, *, clock: Clock, checkpoint: Checkpoint = pass_by
) -> int:
    """Send what waits for webhooks, unless somebody else is at it; tell how many were taken.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    outgoing = OutgoingClient(
        Targets.for_webhooks(settings.outgoing), ca_file=settings.outgoing.ca_file
    )
    sender = WebhookSender(outgoing, WebhookSecrets(build_sealer(settings)))
    composer = EventComposer(clock)
    try:
        async with open_deliveries(
            settings.database, composer=composer, checkpoint=checkpoint
        ) as queue:
            if queue is None:
                return 0
            return await DeliveryService(queue=queue, sender=sender, clock=clock).run()
    finally:
        await outgoing.close()
