"""What has no transaction of its own: recorded durably before it is answered."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from maas.audit.application.events import EventComposer, QueuedEvent
from maas.audit.infrastructure.outbox import RETRY_AFTER, keep_in_outbox
from maas.audit.infrastructure.spool import Spool, SpoolUnavailableError
from maas.audit.infrastructure.stream import EventStream
from maas.audit.public import Actor, AuditedResource, AuditScope, AuditUnavailableError, find_scope
from maas.shared.domain.call import Call, Outcome, current_call
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisUnavailableError

GAP_ACTION: Final = "audit.gap"
TRAIL: Final = AuditedResource("audit_trail", frozenset({"unrecorded"}))
SPOOL_SECONDS: Final = 2.0

log = structlog.get_logger(__name__)


def _count_nowhere(_: int) -> None:
    """Count for nobody."""


@dataclass(slots=True)
class Gap:
    """How many ordinary reads of this process nobody could record, and no event tells of yet."""

    count: int = 0
    on_unrecorded: Callable[[int], None] = _count_nowhere

    def widen(self) -> None:
        self.count += 1
        self.on_unrecorded(1)


class AuditRecorder:
    """The `EventRecorder` of calls: the stream, else the outbox, else a file, else no answer."""

    def __init__(
        self,
        *,
        composer: EventComposer,
        stream: EventStream,
        database: Database,
        spool: Spool | None,
        gap: Gap,
    ) -> None:
        self._composer = composer
        self._stream = stream
        self._database = database
        self._spool = spool
        self._gap = gap
        self._telling: tuple[int, QueuedEvent] | None = None

    async def record(self, *, action: str, outcome: Outcome, reason: str | None = None) -> None:
        """Return once the event is durable; an open scope says what it is about.

        A successful act whose scope says so may go on without its event: it is counted, and the
        count is recorded once something takes it.

        Raises:
            AuditUnavailableError: neither Redis nor PostgreSQL nor the disk took it.
        """
        open_scope = find_scope()
        if open_scope is None:
            scope = AuditScope(action, outcome, reason)
        else:
            scope = replace(open_scope, action=action, outcome=outcome, reason=reason)
        try:
            await self._keep(self._composer.compose(scope, current_call()))
        except AuditUnavailableError as exc:
            if scope.must or outcome != "success":
                raise
            self._gap.widen()
            log.warning("audit_event_unrecorded", action=action, by=exc.code)

    async def report_gap(self) -> None:
        """Record how many events are missing, if any are.

        Raises:
            AuditUnavailableError: there is still no place for it; the count stays.
        """
        # The same event until somebody says that it is kept: it may have been, unsaid.
        self._telling = self._telling or self._tell_gap()
        if self._telling is None:
            return
        missing, event = self._telling
        await self._keep(event)
        self._telling = None
        self._gap.count -= missing

    def _tell_gap(self) -> tuple[int, QueuedEvent] | None:
        missing = self._gap.count
        if not missing:
            return None
        scope = AuditScope(GAP_ACTION, outcome="failure", reason="audit-unavailable")
        scope.actor = Actor("system", None, name="recorder")
        scope.change(TRAIL, "recorder", after={"unrecorded": missing})
        call = Call(request_id=new_id().hex, recorder=self)
        return missing, self._composer.compose(scope, call)

    async def _keep(self, event: QueuedEvent) -> None:
        try:
            await self._stream.append(event)
        except RedisUnavailableError:
            try:
                await keep_in_outbox(self._database, event)
            except AuditUnavailableError:
                await self._spool_or_refuse(event)

    async def _spool_or_refuse(self, event: QueuedEvent) -> None:
        if self._spool is None:
            raise AuditUnavailableError(retry_after=RETRY_AFTER)
        try:
            async with asyncio.timeout(SPOOL_SECONDS):
                await self._spool.append(event)
        except (SpoolUnavailableError, TimeoutError) as exc:
            raise AuditUnavailableError(retry_after=RETRY_AFTER) from exc
