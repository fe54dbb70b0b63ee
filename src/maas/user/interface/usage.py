"""What was used, and what it cost: the tenant's, and one's own."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from maas.shared.domain.errors import may_refuse
from maas.shared.domain.page import TextPageRequest
from maas.shared.interface.pagination import TextPaging, encode_cursor
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import Instant
from maas.user.application.usage import UsageReport, UsageService
from maas.user.domain.usage import Group, UsageCursorError, UsageFilter, UsageNotCountedError
from maas.user.interface.usage_schemas import UsageRead

router = APIRouter(tags=["usage"], route_class=StrictRoute)

MAX_MODEL_CHARS = 256

_IS = """
Added up exactly, as the ledger has it now, from sums that are kept as calls are settled. A call
that is still under way is not in it.

Ask for one or more of day, model, key, user and currency, as in `group_by=day&group_by=model`; rows
come in that order, oldest day first, and groups without calls have none. `sums` adds up all rows,
on whatever page. Costs are told by currency, in nano-units. What is `estimated` was settled without
the supplier's own count.

The span is widened to whole days of UTC, at most 366; left out, it is this month. A call counts for
the day and month in which it was reserved.
"""


async def _service(request: Request) -> UsageService:
    return cast("UsageService", request.scope["state"]["usage"])


async def _wanted(
    model: Annotated[
        str | None,
        Query(min_length=1, max_length=MAX_MODEL_CHARS, description="The model's public name."),
    ] = None,
    api_key_id: UUID | None = None,
) -> UsageFilter:
    return UsageFilter(model=model, api_key_id=api_key_id)


Usage = Annotated[UsageService, Depends(_service)]
Wanted = Annotated[UsageFilter, Depends(_wanted)]
GroupBy = Annotated[
    list[Group] | None,
    Query(min_length=1, max_length=5, description="What rows tell apart; by day if left out."),
]
Since = Annotated[
    Instant | None, Query(description="Reserved then or later; the first of the last month told.")
]
Until = Annotated[Instant | None, Query(description="Reserved before then; the end of this month.")]


async def _report(
    usage: UsageService,
    caller: Caller,
    *,
    group_by: list[Group] | None,
    since: datetime | None,
    until: datetime | None,
    wanted: UsageFilter,
    page: TextPageRequest,
) -> UsageRead:
    report: UsageReport = await usage.report(
        caller.tenant_id,
        group_by=["day"] if group_by is None else group_by,
        since=since,
        until=until,
        wanted=wanted,
        page=page,
    )
    cursor = None if report.next is None else encode_cursor(report.next)
    return UsageRead.of(report, next_cursor=cursor)


@router.get(
    "/usage",
    dependencies=[requires("usage:read")],
    summary="Tell what the tenant used, and what it cost",
    description=_IS,
)
@may_refuse(UsageNotCountedError, UsageCursorError)
async def get_usage(
    usage: Usage,
    caller: Caller,
    wanted: Wanted,
    paging: TextPaging,
    group_by: GroupBy = None,
    since: Since = None,
    until: Until = None,
    account_id: Annotated[
        UUID | None, Query(description="A person's or a service account's id.")
    ] = None,
) -> UsageRead:
    return await _report(
        usage,
        caller,
        group_by=group_by,
        since=since,
        until=until,
        wanted=replace(wanted, account_id=account_id),
        page=paging,
    )


@router.get(
    "/users/usage",
    dependencies=[requires("self:read")],
    summary="Tell what one used oneself in this tenant, and what it cost",
    description=_IS,
)
@may_refuse(UsageNotCountedError, UsageCursorError)
async def get_own_usage(
    usage: Usage,
    caller: Caller,
    wanted: Wanted,
    paging: TextPaging,
    group_by: GroupBy = None,
    since: Since = None,
    until: Until = None,
) -> UsageRead:
    return await _report(
        usage,
        caller,
        group_by=group_by,
        since=since,
        until=until,
        wanted=replace(wanted, account_id=caller.account_id),
        page=paging,
    )
