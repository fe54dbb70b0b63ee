"""How many events there were of what, by whom and when: counted, not read one by one."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import ConfigDict
from pydantic.config import JsonDict

from maas.audit.domain.statistics import Group, NotCountedError
from maas.audit.interface.dependencies import Statistics
from maas.audit.interface.schemas import ActorRead
from maas.audit.public import audited
from maas.shared.domain.call import Outcome
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import Instant, ReadModel

router = APIRouter(prefix="/audit", tags=["audit"], route_class=StrictRoute)

_DESCRIPTION = """
Counted exactly, as the log has it now, from sums that are kept as events are recorded.

Ask for the most frequent with `group_by=action` or `actor`, for a chart with `hour` or `day`
(hours and days without events are there, as zeros), for the trend of each with both, as in
`group_by=day&group_by=action`. Every item tells its outcomes apart.

The span is widened to whole hours of UTC, and to whole days where days or actors are counted;
`since` and `until` of the answer say what was counted. Actors are counted by day and apart from
actions. At most 1,000 hours or days, and 2,500 figures.
"""

_OUTCOMES: JsonDict = {"success": 4180, "failure": 31, "denied": 2}
_EXAMPLE: JsonDict = {
    "since": "2026-10-22T08:00:00Z",
    "until": "2026-11-21T08:00:00Z",
    "group_by": ["action"],
    "total": 4213,
    "outcomes": _OUTCOMES,
    "groups": 7,
    "items": [
        {
            "at": None,
            "action": "auth.login",
            "actor": None,
            "outcome": None,
            "events": 2031,
            "outcomes": {"success": 2000, "failure": 31, "denied": 0},
        }
    ],
    "other_events": 2182,
}


class OutcomesRead(ReadModel):
    success: int
    failure: int
    denied: int


class StatisticRead(ReadModel):
    """How many events have in common what is not null here; `at` is when the hour or day began."""

    at: datetime | None
    action: str | None
    actor: ActorRead | None
    outcome: Outcome | None
    events: int
    outcomes: OutcomesRead


class StatisticsRead(ReadModel):
    """Counts of one span. `groups` says how many there are, `other_events` what the rest has."""

    model_config = ConfigDict(
        from_attributes=True, frozen=True, json_schema_extra={"examples": [_EXAMPLE]}
    )

    since: datetime
    until: datetime
    group_by: list[Group]
    total: int
    outcomes: OutcomesRead
    groups: int
    items: list[StatisticRead]
    other_events: int


@router.get(
    "/stats",
    dependencies=[requires("audit:read")],
    summary="Count the tenant's events",
    description=_DESCRIPTION,
)
@audited("audit.read")
@may_refuse(NotCountedError)
async def count_events(
    statistics: Statistics,
    caller: Caller,
    group_by: Annotated[
        list[Group] | None,
        Query(
            min_length=1,
            max_length=2,
            description=(
                "One of action, outcome and actor, hour or day, or one of each; by action if left"
                " out, or of one actor by day."
            ),
        ),
    ] = None,
    since: Annotated[
        Instant | None, Query(description="Occurred then or later; 30 days before `until`.")
    ] = None,
    until: Annotated[Instant | None, Query(description="Occurred before then; now.")] = None,
    action: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=100,
            pattern=r"^[a-z0-9_.-]*\*?$",
            description="An action, or the beginning of one and a `*`.",
            examples=["account.created", "auth.*"],
        ),
    ] = None,
    outcome: Outcome | None = None,
    actor_id: UUID | None = None,
    limit: Annotated[
        int, Query(ge=1, le=200, description="So many actions or actors, the most frequent ones.")
    ] = 20,
) -> StatisticsRead:
    found = await statistics.count(
        caller.tenant_id,
        group_by=group_by,
        since=since,
        until=until,
        action=action,
        outcome=outcome,
        actor_id=actor_id,
        limit=limit,
    )
    return StatisticsRead.model_validate(found)
