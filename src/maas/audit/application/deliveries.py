"""Delivering alerts: in order for each webhook, however long one of them is down."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol, TypeAlias
from uuid import UUID

import structlog

from maas.audit.application.alerts import AlertDetails, spell_alert
from maas.audit.domain.webhooks import GONE, WebhookId, wait_after
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest

RUN_SECONDS: Final = 8.0
REACH_SECONDS: Final = 16.0
"""Until then a run still begins with webhooks that it has not tried."""

AT_ONCE: Final = 16
AT_ONCE_A_TENANT: Final = 2
"""Webhooks that are tried at the same time: however slow one tenant's are, others go on."""

DeliveryStatus: TypeAlias = Literal["pending", "delivered", "failed"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Where a message goes, and the sealed secrets that sign it, the newest first."""

    webhook_id: WebhookId
    tenant_id: TenantId
    url: str
    secret: bytes
    previous_secret: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of sending: a status, or an error and what to do about it."""

    status: int | None
    error: str | None
    message: str
    took: timedelta

    @property
    def is_success(self) -> bool:
        return self.error is None


@dataclass(frozen=True, slots=True, kw_only=True)
class DueWebhook:
    """A webhook with something to send, whose wait is over."""

    webhook_id: WebhookId
    tenant_id: TenantId


class MessageSender(Protocol):
    async def send(
        self, recipient: Recipient, *, message_id: UUID, body: bytes, at: datetime
    ) -> Attempt:
        """Sign and send, within seconds; whatever goes wrong is told, not raised."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingDelivery:
    """The oldest delivery that a webhook has not taken."""

    id: UUID
    recipient: Recipient
    alert: AlertDetails
    failures: int
    """How often its webhook has failed in a row."""


class DeliveryQueue(Protocol):
    """The queues as their sender sees them; every method is one transaction.

    All raise LogUnavailableError when PostgreSQL does not answer.
    """

    async def list_due(self, *, at: datetime) -> Sequence[DueWebhook]:
        """List webhooks that are due, those first that were tried longest ago."""
        ...

    async def find_next(self, webhook_id: WebhookId, *, at: datetime) -> WaitingDelivery | None:
        """Find the oldest delivery that waits, if the webhook still takes any."""
        ...

    async def note_success(
        self, waiting: WaitingDelivery, attempt: Attempt, *, at: datetime
    ) -> None:
        """Finish it, and let the next follow at once."""
        ...

    async def note_failure(
        self, waiting: WaitingDelivery, attempt: Attempt, *, at: datetime, next_at: datetime
    ) -> None:
        """Put the webhook off, give up what waited too long, and leave the events of that."""
        ...

    async def tidy(self, *, at: datetime) -> None:
        """Give up what waits for webhooks that are off, and forget what ended long ago."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryService:
    """Sends each delivery until it is taken once: a crash between the two sends it again."""

    queue: DeliveryQueue
    sender: MessageSender
    clock: Clock
    run_seconds: float = RUN_SECONDS
    reach_seconds: float = REACH_SECONDS

    async def run(self) -> int:
        """Send what is due, and tell how many were taken.

        For 8 s, or 16 s for webhooks it has not tried yet, and what is on its way then. Who was
        not reached was tried longest ago, and comes first in the next run.
        """
        begun = time.monotonic()
        due = await self.queue.list_due(at=self.clock.now())
        slots = asyncio.Semaphore(AT_ONCE)
        own: defaultdict[TenantId, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(AT_ONCE_A_TENANT)
        )

        async def serve(webhook: DueWebhook) -> int:
            # The tenant's first: who waits for his own keeps no place that others could have.
            async with own[webhook.tenant_id], slots:
                return await self._drain(webhook.webhook_id, begun=begun)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(serve(webhook)) for webhook in due]
        await self.queue.tidy(at=self.clock.now())
        return sum(task.result() for task in tasks)

    async def _drain(self, webhook_id: WebhookId, *, begun: float) -> int:
        """Send one webhook's deliveries, the oldest first, up to the first that fails."""
        sent = 0
        while time.monotonic() - begun < (self.run_seconds if sent else self.reach_seconds):
            now = self.clock.now()
            waiting = await self.queue.find_next(webhook_id, at=now)
            if waiting is None:
                break
            attempt = await self.sender.send(
                waiting.recipient, message_id=waiting.id, body=spell_alert(waiting.alert), at=now
            )
            if not attempt.is_success:
                await self._put_off(waiting, attempt)
                break
            await self.queue.note_success(waiting, attempt, at=self.clock.now())
            sent += 1
        return sent

    async def _put_off(self, waiting: WaitingDelivery, attempt: Attempt) -> None:
        now = self.clock.now()
        failures = waiting.failures + 1
        log.warning(
            "audit_delivery_put_off",
            delivery_id=str(waiting.id),
            webhook_id=str(waiting.recipient.webhook_id),
            failures=failures,
            status=attempt.status,
            error=attempt.error,
        )
        next_at = now + wait_after(failures)
        await self.queue.note_failure(waiting, attempt, at=now, next_at=next_at)


def is_gone(attempt: Attempt) -> bool:
    """Tell whether the receiver says that it wants nothing any more."""
    return attempt.status == GONE


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryDetails:
    """One line of a webhook's log; `alert_id` is null for a test."""

    id: UUID
    alert_id: UUID | None
    rule: str | None
    status: DeliveryStatus
    attempts: int
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    finished_at: datetime | None
    last_status: int | None
    last_error: str | None


class DeliveryQueries(Protocol):
    async def list_deliveries(
        self,
        tenant_id: TenantId,
        webhook_id: WebhookId,
        page: PageRequest,
        *,
        status: DeliveryStatus | None,
    ) -> Page[DeliveryDetails]:
        """List a webhook's deliveries, newest first.

        Raises:
            WebhookNotFoundError.
        """
        ...
