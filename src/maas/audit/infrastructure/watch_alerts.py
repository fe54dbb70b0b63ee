"""Alerts as the watch writes them: each with its event, and a delivery for each webhook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog

from maas.audit.application.events import EventComposer
from maas.audit.domain.event import spell_instant
from maas.audit.domain.rules import RuleName
from maas.audit.domain.rules_clues import Subject
from maas.audit.domain.watch import Burst
from maas.audit.domain.webhooks import MAX_PENDING
from maas.audit.infrastructure.outbox import insert_event
from maas.audit.infrastructure.silence import SilentAudit
from maas.audit.public import Actor, AuditedResource, AuditScope
from maas.shared.domain.call import Call
from maas.shared.domain.ids import TenantId, new_id

ALERT_ACTION = "audit.alert"
ALERT: Final = AuditedResource(
    "alert", frozenset({"rule", "subject_kind", "subject_id", "count", "muted_until"})
)

MAX_ALERTS_AN_HOUR: Final = 100
"""Of one rule in one tenant; the last one says that there may be more, which are left out."""

_HOUR: Final = timedelta(hours=1)

_RAISED: Final = """
    SELECT tenant_id, rule, count(*) AS raised FROM audit_alerts
    WHERE tenant_id = ANY($1) AND raised_at >= $2 AND raised_at < $3 GROUP BY 1, 2
"""
_RAISE: Final = """
    INSERT INTO audit_alerts (id, tenant_id, rule, subject_kind, subject_id, count, first_at,
        last_at, trigger_id, event_ids, raised_at, muted_until)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (rule, trigger_id) DO NOTHING RETURNING id
"""
_WEBHOOKS: Final = """
    SELECT id, tenant_id, rules,
        (SELECT count(*) FROM audit_deliveries d
         WHERE d.webhook_id = w.id AND d.status = 'pending') AS pending
    FROM audit_webhooks w WHERE tenant_id = ANY($1) AND status = 'active'
    ORDER BY created_at, id FOR KEY SHARE
"""
_DELIVER: Final = """
    INSERT INTO audit_deliveries (id, tenant_id, webhook_id, alert_id, status, attempts, created_at,
        finished_at, last_error)
    SELECT id, tenant_id, webhook_id, alert_id, CASE WHEN has_room THEN 'pending' ELSE 'failed' END,
        0, $6, CASE WHEN NOT has_room THEN $6::timestamptz END,
        CASE WHEN NOT has_room THEN 'queue-full' END
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::boolean[]) WITH ORDINALITY
        AS t (id, tenant_id, webhook_id, alert_id, has_room, place)
    ORDER BY place
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Raised:
    tenant_id: TenantId
    rule: RuleName
    subject: Subject
    burst: Burst


class AlertWriter:
    """Writes within the transaction of a slice."""

    def __init__(
        self, connection: "asyncpg.Connection[asyncpg.Record]", composer: EventComposer
    ) -> None:
        self._connection = connection
        self._composer = composer

    async def tell(self, alerts: Sequence[Raised], *, at: datetime) -> int:
        """Write alerts, the events of them, and a delivery for each webhook that wants to know."""
        if not alerts:
            return 0
        tenants = list({alert.tenant_id for alert in alerts})
        hour = at.replace(minute=0, second=0, microsecond=0)
        rows = await self._connection.fetch(_RAISED, tenants, hour, hour + _HOUR)
        raised = {(row["tenant_id"], row["rule"]): row["raised"] for row in rows}
        written: list[tuple[Raised, UUID]] = []
        for alert in alerts:
            key = (alert.tenant_id, alert.rule)
            before = raised.get(key, 0)
            if before >= MAX_ALERTS_AN_HOUR:
                continue
            muted_until = hour + _HOUR if before + 1 == MAX_ALERTS_AN_HOUR else None
            alert_id = await self._write(alert, at=at, muted_until=muted_until)
            if alert_id is not None:
                raised[key] = before + 1
                written.append((alert, alert_id))
        if len(written) < len(alerts):
            log.warning("audit_alerts_left_out", count=len(alerts) - len(written))
        await self._deliver(written, tenants, at=at)
        return len(written)

    async def _write(
        self, alert: Raised, *, at: datetime, muted_until: datetime | None
    ) -> UUID | None:
        burst = alert.burst
        written: UUID | None = await self._connection.fetchval(
            _RAISE,
            new_id(),
            alert.tenant_id,
            alert.rule,
            alert.subject.kind,
            alert.subject.shown_id,
            burst.count,
            burst.first_at,
            burst.last_at,
            burst.trigger_id,
            list(burst.event_ids),
            at,
            muted_until,
        )
        if written is not None:
            event = self._compose(alert, written, muted_until)
            await insert_event(self._connection, event)
        return written

    async def _deliver(
        self, alerts: Sequence[tuple[Raised, UUID]], tenants: Sequence[TenantId], *, at: datetime
    ) -> None:
        """Queue all at once: a storm of alerts times all webhooks of a tenant is thousands."""
        webhooks = await self._connection.fetch(_WEBHOOKS, tenants)
        room = {row["id"]: MAX_PENDING - row["pending"] for row in webhooks}
        of_tenant: Mapping[UUID, list[Any]] = {tenant: [] for tenant in tenants}
        for row in webhooks:
            of_tenant[row["tenant_id"]].append(row)
        queued: list[tuple[object, ...]] = []
        for alert, alert_id in alerts:
            for row in of_tenant[alert.tenant_id]:
                if not row["rules"] or alert.rule in row["rules"]:
                    has_room = room[row["id"]] > 0
                    queued.append((new_id(), alert.tenant_id, row["id"], alert_id, has_room))
                    room[row["id"]] -= 1
        if queued:
            await self._connection.execute(_DELIVER, *map(list, zip(*queued, strict=True)), at)

    def _compose(self, alert: Raised, alert_id: UUID, muted_until: datetime | None) -> Any:
        scope = AuditScope(ALERT_ACTION, tenant_id=alert.tenant_id)
        scope.actor = Actor("system", None, name="watch")
        told = {
            "rule": alert.rule,
            "subject_kind": alert.subject.kind,
            "subject_id": alert.subject.shown_id,
            "count": alert.burst.count,
        }
        if muted_until is not None:
            told["muted_until"] = spell_instant(muted_until)
        scope.change(ALERT, alert_id, after=told)
        return self._composer.compose(scope, Call(request_id=new_id().hex, recorder=SilentAudit()))
