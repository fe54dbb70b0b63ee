"""Whose turn it is: no tenant's receivers keep another's waiting, however they behave."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from typing_extensions import override

from maas.audit.application.alerts import AlertDetails, SubjectDetails
from maas.audit.application.deliveries import (
    AT_ONCE,
    AT_ONCE_A_TENANT,
    Attempt,
    DeliveryQueue,
    DeliveryService,
    DueWebhook,
    MessageSender,
    Recipient,
    WaitingDelivery,
)
from maas.audit.domain.webhooks import MAX_WEBHOOKS, WebhookId
from maas.shared.domain.ids import TenantId, new_id
from tests.fakes.clock import FakeClock

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TOOK = Attempt(status=200, error=None, message="", took=timedelta())


@dataclass
class Queue(DeliveryQueue):
    """Has so many deliveries for each webhook, and counts what was noted."""

    due: list[DueWebhook]
    waiting: int = 1
    taken: Counter[WebhookId] = field(default_factory=Counter)

    @override
    async def list_due(self, *, at: datetime) -> Sequence[DueWebhook]:
        return self.due

    @override
    async def find_next(self, webhook_id: WebhookId, *, at: datetime) -> WaitingDelivery | None:
        if self.taken[webhook_id] >= self.waiting:
            return None
        (tenant_id,) = [each.tenant_id for each in self.due if each.webhook_id == webhook_id]
        return _waiting(webhook_id, tenant_id)

    @override
    async def note_success(
        self, waiting: WaitingDelivery, attempt: Attempt, *, at: datetime
    ) -> None:
        self.taken[waiting.recipient.webhook_id] += 1

    @override
    async def note_failure(
        self, waiting: WaitingDelivery, attempt: Attempt, *, at: datetime, next_at: datetime
    ) -> None:
        raise AssertionError

    @override
    async def tidy(self, *, at: datetime) -> None: ...


@dataclass
class Sender(MessageSender):
    """Keeps one tenant's messages until it is told to go on, and takes the others' at once."""

    slow: TenantId | None = None
    going_on: asyncio.Event = field(default_factory=asyncio.Event)
    sent: list[TenantId] = field(default_factory=list)
    held: int = 0
    most_held: int = 0

    @override
    async def send(
        self, recipient: Recipient, *, message_id: UUID, body: bytes, at: datetime
    ) -> Attempt:
        if recipient.tenant_id == self.slow:
            self.held += 1
            self.most_held = max(self.most_held, self.held)
            await self.going_on.wait()
            self.held -= 1
        else:
            self.sent.append(recipient.tenant_id)
            self.going_on.set()
        return TOOK


def _webhooks(tenant_id: TenantId, count: int) -> list[DueWebhook]:
    return [DueWebhook(webhook_id=WebhookId(new_id()), tenant_id=tenant_id) for _ in range(count)]


def _waiting(webhook_id: WebhookId, tenant_id: TenantId) -> WaitingDelivery:
    alert = AlertDetails(
        id=new_id(),
        tenant_id=tenant_id,
        rule="new-admin",
        subject=SubjectDetails(kind="account", id="x"),
        count=1,
        first_at=NOW,
        last_at=NOW,
        event_ids=[new_id()],
        raised_at=NOW,
    )
    recipient = Recipient(
        webhook_id=webhook_id,
        tenant_id=tenant_id,
        url="https://alerts.example.com/",
        secret=b"",
        previous_secret=None,
    )
    return WaitingDelivery(id=new_id(), recipient=recipient, alert=alert, failures=0)


async def test_a_tenant_whose_receivers_are_slow_keeps_nobody_waiting() -> None:
    slow, other = TenantId(new_id()), TenantId(new_id())
    # The slow ones answer only once the other's alert was sent, which stands last.
    queue = Queue([*_webhooks(slow, MAX_WEBHOOKS), *_webhooks(other, 1)])
    sender = Sender(slow)

    await DeliveryService(queue=queue, sender=sender, clock=FakeClock(NOW)).run()

    assert sender.sent == [other]
    assert sender.most_held <= AT_ONCE_A_TENANT


async def test_who_is_reached_late_is_tried_once_all_the_same() -> None:
    queue = Queue(
        [each for _ in range(3 * AT_ONCE) for each in _webhooks(TenantId(new_id()), 1)], waiting=2
    )
    service = DeliveryService(
        queue=queue, sender=Sender(), clock=FakeClock(NOW), run_seconds=0, reach_seconds=3_600
    )

    assert await service.run() == 3 * AT_ONCE
    assert set(queue.taken.values()) == {1}


async def test_a_run_ends_however_many_are_due() -> None:
    queue = Queue(_webhooks(TenantId(new_id()), 5))
    service = DeliveryService(
        queue=queue, sender=Sender(), clock=FakeClock(NOW), run_seconds=0, reach_seconds=0
    )

    assert await service.run() == 0
