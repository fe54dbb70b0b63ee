"""The queues of deliveries in PostgreSQL, as `maas_system`; one run at a time, over all workers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from maas.audit.application.alerts import AlertDetails, SubjectDetails
from maas.audit.application.deliveries import (
    Attempt,
    DueWebhook,
    Recipient,
    WaitingDelivery,
    is_gone,
)
from maas.audit.application.events import EventComposer
from maas.audit.domain.webhooks import DELIVERY_LIFETIME, LONGEST_WAIT, WebhookId
from maas.audit.infrastructure.ledger import Checkpoint, pass_by
from maas.audit.infrastructure.outbox import insert_event
from maas.audit.infrastructure.silence import SilentAudit
from maas.audit.infrastructure.watch_outages import naming_outages
from maas.audit.public import Actor, AuditedResource, AuditScope
from maas.shared.domain.call import Call
from maas.shared.domain.ids import TenantId, new_id
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings
from maas.shared.infrastructure.worker_connections import DELIVERY_CONNECTIONS

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

FAILED_ACTION = "audit.delivery_failed"
DISABLED_ACTION = "audit.webhook_disabled"
QUEUE: Final = AuditedResource("webhook", frozenset({"failed_deliveries", "status"}))

LOG_KEPT: Final = timedelta(days=30)
DUE_AT_ONCE: Final = 200
GIVEN_UP: Final = "given-up"

# All the while its transaction does nothing; longer than a run takes.
_STAY: Final = "SET LOCAL idle_in_transaction_session_timeout = '60s'"
_LOCK: Final = "SELECT pg_try_advisory_xact_lock(hashtextextended('maas.audit_deliver', 0))"
# Nothing is put off for longer than the longest wait, unless a clock was wrong then.
_DUE: Final = """
    SELECT q.webhook_id, q.tenant_id
    FROM audit_webhook_queues q JOIN audit_webhooks w ON w.id = q.webhook_id
    WHERE w.status = 'active' AND (q.next_attempt_at <= $1 OR q.next_attempt_at > $3) AND EXISTS (
        SELECT FROM audit_deliveries d WHERE d.webhook_id = w.id AND d.status = 'pending')
    ORDER BY q.tried_at NULLS FIRST, q.next_attempt_at LIMIT $2
"""
_NEXT: Final = """
    SELECT d.id AS delivery_id, w.id AS webhook_id, w.url, w.secret, q.failures,
        CASE WHEN w.previous_until > $2 THEN w.previous_secret END AS previous_secret, a.*
    FROM audit_webhooks w
    JOIN audit_webhook_queues q ON q.webhook_id = w.id
    JOIN LATERAL (
        SELECT id, alert_id FROM audit_deliveries
        WHERE webhook_id = w.id AND tenant_id = w.tenant_id AND status = 'pending'
        ORDER BY position LIMIT 1
    ) AS d ON true
    JOIN audit_alerts a ON a.id = d.alert_id AND a.tenant_id = w.tenant_id
    WHERE w.id = $1 AND w.status = 'active'
"""
_NOTE: Final = """
    UPDATE audit_deliveries
    SET attempts = attempts + 1, last_attempt_at = $2, last_status = $3, last_error = $4,
        status = CASE WHEN $4::text IS NULL THEN 'delivered' ELSE status END,
        finished_at = CASE WHEN $4::text IS NULL THEN $2 ELSE finished_at END
    WHERE id = $1 AND status = 'pending'
"""
_WELL: Final = """
    UPDATE audit_webhook_queues SET failures = 0, next_attempt_at = $2, tried_at = $2
    WHERE webhook_id = $1
"""
_PUT_OFF: Final = """
    UPDATE audit_webhook_queues
    SET failures = failures + 1, next_attempt_at = $2, tried_at = $3 WHERE webhook_id = $1
"""
_GIVE_UP: Final = """
    WITH failed AS (
        UPDATE audit_deliveries d
        SET status = 'failed', finished_at = $1, last_error = coalesce(last_error, $3)
        FROM audit_webhooks w
        WHERE w.id = d.webhook_id AND d.status = 'pending' AND d.created_at < $2 AND {which}
        RETURNING d.tenant_id, d.webhook_id
    )
    SELECT tenant_id, webhook_id, count(*) AS failed FROM failed GROUP BY 1, 2 ORDER BY 1, 2
"""
_GIVE_UP_ONE: Final = _GIVE_UP.format(which="w.id = $4")
_GIVE_UP_IDLE: Final = _GIVE_UP.format(which="w.status = 'disabled'")
_DISABLE: Final = """
    UPDATE audit_webhooks
    SET status = 'disabled', status_reason = 'gone', updated_at = $2, version = version + 1
    WHERE id = $1 AND status = 'active' RETURNING tenant_id
"""
_FORGET: Final = "DELETE FROM audit_deliveries WHERE status <> 'pending' AND finished_at < $1"


class PostgresDeliveries:
    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        *,
        composer: EventComposer,
        checkpoint: Checkpoint = pass_by,
    ) -> None:
        self._pool = pool
        self._composer = composer
        self._checkpoint = checkpoint

    async def list_due(self, *, at: datetime) -> Sequence[DueWebhook]:
        async with self._transaction() as connection:
            rows = await connection.fetch(_DUE, at, DUE_AT_ONCE, at + LONGEST_WAIT)
        return [
            DueWebhook(
                webhook_id=WebhookId(row["webhook_id"]), tenant_id=TenantId(row["tenant_id"])
            )
            for row in rows
        ]

    async def find_next(self, webhook_id: WebhookId, *, at: datetime) -> WaitingDelivery | None:
        async with self._transaction() as connection:
            row = await connection.fetchrow(_NEXT, webhook_id, at)
        return None if row is None else _waiting(row)

    async def note_success(
        self, waiting: WaitingDelivery, attempt: Attempt, *, at: datetime
    ) -> None:
        self._checkpoint("after_send")
        async with self._transaction() as connection:
            await connection.execute(_NOTE, waiting.id, at, attempt.status, None)
            await connection.execute(_WELL, waiting.recipient.webhook_id, at)

    async def note_failure(
        self, waiting: WaitingDelivery, attempt: Attempt, *, at: datetime, next_at: datetime
    ) -> None:
        webhook_id = waiting.recipient.webhook_id
        async with self._transaction() as connection:
            await connection.execute(_NOTE, waiting.id, at, attempt.status, attempt.error)
            await connection.execute(_PUT_OFF, webhook_id, next_at, at)
            await self._give_up(connection, _GIVE_UP_ONE, at, webhook_id)
            if is_gone(attempt):
                await self._disable(connection, webhook_id, at)

    async def tidy(self, *, at: datetime) -> None:
        async with self._transaction() as connection:
            await self._give_up(connection, _GIVE_UP_IDLE, at)
            await connection.execute(_FORGET, at - LOG_KEPT)

    async def _give_up(
        self, connection: Connection, statement: str, at: datetime, *of: object
    ) -> None:
        for row in await connection.fetch(statement, at, at - DELIVERY_LIFETIME, GIVEN_UP, *of):
            await self._record(
                connection,
                FAILED_ACTION,
                TenantId(row["tenant_id"]),
                row["webhook_id"],
                failed_deliveries=row["failed"],
            )

    async def _disable(self, connection: Connection, webhook_id: WebhookId, at: datetime) -> None:
        tenant_id = await connection.fetchval(_DISABLE, webhook_id, at)
        if tenant_id is not None:
            tenant = TenantId(tenant_id)
            await self._record(connection, DISABLED_ACTION, tenant, webhook_id, status="disabled")

    async def _record(
        self,
        connection: Connection,
        action: str,
        tenant_id: TenantId,
        webhook_id: WebhookId,
        **after: int | str,
    ) -> None:
        scope = AuditScope(action, outcome="failure", tenant_id=tenant_id)
        scope.actor = Actor("system", None, name="delivery")
        scope.change(QUEUE, webhook_id, after=after)
        call = Call(request_id=new_id().hex, recorder=SilentAudit())
        await insert_event(connection, self._composer.compose(scope, call))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with naming_outages():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection


def _waiting(row: Any) -> WaitingDelivery:
    tenant_id = TenantId(row["tenant_id"])
    return WaitingDelivery(
        id=row["delivery_id"],
        recipient=Recipient(
            webhook_id=WebhookId(row["webhook_id"]),
            tenant_id=tenant_id,
            url=row["url"],
            secret=row["secret"],
            previous_secret=row["previous_secret"],
        ),
        alert=alert_of(row),
        failures=row["failures"],
    )


def alert_of(row: Any) -> AlertDetails:
    """Read an alert from a row of its table."""
    return AlertDetails(
        id=row["id"],
        tenant_id=TenantId(row["tenant_id"]),
        rule=row["rule"],
        subject=SubjectDetails(kind=row["subject_kind"], id=row["subject_id"]),
        count=row["count"],
        first_at=row["first_at"],
        last_at=row["last_at"],
        event_ids=list(row["event_ids"]),
        raised_at=row["raised_at"],
        muted_until=row["muted_until"],
    )


@asynccontextmanager
async def open_deliveries(
    settings: DatabaseSettings, *, composer: EventComposer, checkpoint: Checkpoint = pass_by
) -> AsyncIterator[PostgresDeliveries | None]:
    """Connect for one run; `None` if another run is under way, here or on another machine.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    arguments = system_arguments(settings)
    with naming_outages():
        lock = await asyncpg.connect(**arguments)
    try:
        # The lock goes with its connection, however this process ends.
        await lock.execute("BEGIN")
        await lock.execute(_STAY)
        if not await lock.fetchval(_LOCK):
            yield None
            return
        async with asyncpg.create_pool(
            min_size=0, max_size=DELIVERY_CONNECTIONS, **arguments
        ) as pool:
            yield PostgresDeliveries(pool, composer=composer, checkpoint=checkpoint)
    finally:
        await lock.close()
