"""Alerts as they are read and told of: ids and counts, nothing personal."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

from maas.audit.domain.event import spell_instant
from maas.audit.domain.rules import RuleName
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest

ALERT_TYPE: Final = "audit.alert"
TEST_TYPE: Final = "audit.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectDetails:
    """Whom an alert is about; a sign-in's name or address has no id, and its events tell."""

    kind: str
    id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertDetails:
    """What happened; `event_ids` are the last hundred of `count`, the oldest first.

    `muted_until` is set on the last alert that a rule raises in an hour: there may be more.
    """

    id: UUID
    tenant_id: TenantId
    rule: RuleName
    subject: SubjectDetails
    count: int
    first_at: datetime
    last_at: datetime
    event_ids: Sequence[UUID]
    raised_at: datetime
    muted_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertFilter:
    """`since` is inclusive, `until` is not; both are of when the alert was raised."""

    rule: RuleName | None = None
    since: datetime | None = None
    until: datetime | None = None


class AlertQueries(Protocol):
    async def list_alerts(
        self, tenant_id: TenantId, wanted: AlertFilter, page: PageRequest
    ) -> Page[AlertDetails]:
        """List a tenant's alerts, newest first."""
        ...


def spell_alert(alert: AlertDetails) -> bytes:
    """Write the body that webhooks get; it can be written again at any time, byte for byte."""
    return _spell(
        ALERT_TYPE,
        alert.raised_at,
        {
            "id": str(alert.id),
            "tenant_id": str(alert.tenant_id),
            "rule": alert.rule,
            "subject": {"kind": alert.subject.kind, "id": alert.subject.id},
            "count": alert.count,
            "first_at": spell_instant(alert.first_at),
            "last_at": spell_instant(alert.last_at),
            "event_ids": [str(each) for each in alert.event_ids],
            "muted_until": None if alert.muted_until is None else spell_instant(alert.muted_until),
        },
    )


def spell_test(tenant_id: TenantId, *, at: datetime) -> bytes:
    """Write the body of a test, which is no alert."""
    return _spell(TEST_TYPE, at, {"tenant_id": str(tenant_id)})


def _spell(kind: str, at: datetime, data: dict[str, object]) -> bytes:
    body = {"type": kind, "timestamp": spell_instant(at), "data": data}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
