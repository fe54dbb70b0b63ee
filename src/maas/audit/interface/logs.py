"""Reading the trail, which is itself an audited act."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import IPvAnyNetwork

from maas.audit.application.queries import AuditEventNotFoundError, EventFilter, Order
from maas.audit.interface.cursors import (
    Cursor,
    CursorOfAnotherListError,
    decode_list_cursor,
    encode_list_cursor,
)
from maas.audit.interface.dependencies import Queries
from maas.audit.interface.schemas import AuditEventRead, EventNeighboursRead
from maas.audit.public import audited
from maas.shared.domain.call import Outcome
from maas.shared.domain.errors import may_refuse
from maas.shared.domain.page import PageRequest
from maas.shared.interface.pagination import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    InvalidCursorError,
    PageRead,
)
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import Instant, Line, Search

router = APIRouter(prefix="/audit/logs", tags=["audit"], route_class=StrictRoute)

_TEXT_IS = (
    "A part of the action, the reason, the actor's name or the e-mail address, in any case and any "
    "script; `%`, `_` and `*` are letters like others. What is erased is not found any more. "
    "Parts of ids are not searched for: use `resource_id`, `request_id`, `session_id`, `actor_id`."
)
_LIST_IS = (
    "Filters add up, and hold for every page of a list: the cursor belongs to them and to the "
    "order. Where no index answers a combination and few of many events fit, a page may be short, "
    "or empty, and still have a `next_cursor`: go on with it, or narrow `since` and `until`. "
    "Reading the trail is an act itself, and leaves an event."
)

_ShortText = Annotated[Line, Query(min_length=1, max_length=256)]


async def _wanted(
    actor_id: UUID | None = None,
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
    resource_kind: _ShortText | None = None,
    resource_id: _ShortText | None = None,
    outcome: Outcome | None = None,
    address: Annotated[
        IPvAnyNetwork | None,
        Query(
            description="An address, or a network in CIDR form.",
            examples=["192.0.2.7", "2001:db8::/48"],
        ),
    ] = None,
    request_id: _ShortText | None = None,
    session_id: UUID | None = None,
    api_key_id: UUID | None = None,
    q: Annotated[Search | None, Query(description=_TEXT_IS)] = None,
    since: Annotated[Instant | None, Query(description="Occurred then or later.")] = None,
    until: Annotated[Instant | None, Query(description="Occurred before then.")] = None,
) -> EventFilter:
    return EventFilter(
        actor_id=actor_id,
        action=action,
        resource_kind=resource_kind,
        resource_id=resource_id,
        outcome=outcome,
        address=address,
        request_id=request_id,
        session_id=session_id,
        api_key_id=api_key_id,
        q=q,
        since=since,
        until=until,
    )


Wanted = Annotated[EventFilter, Depends(_wanted)]


@router.get(
    "",
    dependencies=[requires("audit:read")],
    summary="List the tenant's events, newest or oldest first",
    description=_LIST_IS,
)
@audited("audit.read")
@may_refuse(InvalidCursorError, CursorOfAnotherListError)
async def list_logs(
    queries: Queries,
    caller: Caller,
    wanted: Wanted,
    order: Annotated[
        Order, Query(description="By when it occurred; the id decides between equals.")
    ] = "newest",
    limit: Annotated[
        int, Query(ge=1, le=MAX_LIMIT, description="How many items a page has at most.")
    ] = DEFAULT_LIMIT,
    cursor: Cursor = None,
    *,
    include_total: Annotated[bool, Query(description="Count all items; costs a query.")] = False,
) -> PageRead[AuditEventRead]:
    after = None if cursor is None else decode_list_cursor(cursor, wanted, order)
    paging = PageRequest(limit=limit, after=after, include_total=include_total)
    page = await queries.list_events(caller.tenant_id, wanted=wanted, page=paging, order=order)
    read = PageRead[AuditEventRead].of(page, AuditEventRead.model_validate)
    if page.next is not None:
        read.next_cursor = encode_list_cursor(page.next, wanted, order)
    return read


@router.get(
    "/{id}",
    dependencies=[requires("audit:read")],
    summary="Read one event",
    description="Tells also its place in the hash chain. Reading it leaves an event.",
)
@audited("audit.read")
@may_refuse(AuditEventNotFoundError)
async def get_log(id: UUID, queries: Queries, caller: Caller) -> AuditEventRead:  # noqa: A002  the path's name
    event = await queries.get_event(caller.tenant_id, id)
    return AuditEventRead.model_validate(event)


@router.get(
    "/{id}/neighbours",
    dependencies=[requires("audit:read")],
    summary="Read one event with what was done around it",
    description=(
        "The events of the same request, and those before and after it of the same session; of the "
        "same actor, where it has no session. Each list has the nearest 20, in the order of time. "
        "What was done to one thing is a list by `resource_kind` and `resource_id`. Reading it "
        "leaves an event."
    ),
)
@audited("audit.read")
@may_refuse(AuditEventNotFoundError)
async def get_log_neighbours(id: UUID, queries: Queries, caller: Caller) -> EventNeighboursRead:  # noqa: A002  likewise
    return EventNeighboursRead.model_validate(await queries.get_neighbours(caller.tenant_id, id))
