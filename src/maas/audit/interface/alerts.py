"""What the rules found."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import ConfigDict

from maas.audit.application.alerts import AlertFilter
from maas.audit.domain.rules import RuleName
from maas.audit.interface.watch_dependencies import Alerts
from maas.audit.public import audited
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import Instant, ReadModel

router = APIRouter(prefix="/audit/alerts", tags=["audit"], route_class=StrictRoute)


class SubjectRead(ReadModel):
    """`id` is null for a sign-in's name or an address: the events tell them, while they may."""

    kind: str
    id: str | None


class AlertRead(ReadModel):
    """What happened: `count` events between `first_at` and `last_at`.

    `event_ids` are the last hundred of them, the oldest first, to be looked up in the log.
    A rule raises a hundred alerts an hour: the last of them says in `muted_until` when there will
    be others, and what it finds before then is left out.
    """

    model_config = ConfigDict(
        from_attributes=True,
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-7a1c-7c3e-9d39-3b1a2f4c5d70",
                    "rule": "mass-deletion",
                    "subject": {
                        "kind": "account",
                        "id": "01935d2e-0000-7000-8000-000000000002",
                    },
                    "count": 21,
                    "first_at": "2026-11-21T08:00:00.123456Z",
                    "last_at": "2026-11-21T08:04:10.000000Z",
                    "event_ids": ["01935d2e-7a1c-7c3e-9d39-3b1a2f4c5d6e"],
                    "raised_at": "2026-11-21T08:04:12.000000Z",
                    "muted_until": None,
                }
            ]
        },
    )

    id: UUID
    rule: RuleName
    subject: SubjectRead
    count: int
    first_at: Instant
    last_at: Instant
    event_ids: list[UUID]
    raised_at: Instant
    muted_until: Instant | None


@router.get(
    "",
    dependencies=[requires("audit:read")],
    summary="List the tenant's alerts, newest first",
    description=(
        "Filters add up. An alert is raised once for what belongs together, within seconds of its "
        "being recorded. Reading them leaves an event, as reading the log does."
    ),
)
@audited("audit.read")
async def list_alerts(
    alerts: Alerts,
    caller: Caller,
    paging: Paging,
    rule: RuleName | None = None,
    since: Annotated[Instant | None, Query(description="Raised then or later.")] = None,
    until: Annotated[Instant | None, Query(description="Raised before then.")] = None,
) -> PageRead[AlertRead]:
    wanted = AlertFilter(rule=rule, since=since, until=until)
    page = await alerts.list_alerts(caller.tenant_id, wanted, paging)
    return PageRead[AlertRead].of(page, AlertRead.model_validate)
