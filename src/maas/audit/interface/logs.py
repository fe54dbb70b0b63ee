"""Reading the trail, which is itself an audited act."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import IPvAnyNetwork

from maas.audit.application.queries import AuditEventNotFoundError, EventFilter
from maas.audit.interface.dependencies import Queries
from maas.audit.interface.schemas import AuditEventRead
from maas.audit.public import audited
from maas.shared.domain.call import Outcome
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import Instant

router = APIRouter(prefix="/audit/logs", tags=["audit"], route_class=StrictRoute)

_ShortText = Annotated[str, Query(min_length=1, max_length=256)]


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
        since=since,
        until=until,
    )


Wanted = Annotated[EventFilter, Depends(_wanted)]


@router.get(
    "",
    dependencies=[requires("audit:read")],
    summary="List the tenant's events, newest first",
    description="Filters add up. Reading the trail is an act itself, and leaves an event.",
)
@audited("audit.read")
async def list_logs(
    queries: Queries, caller: Caller, wanted: Wanted, paging: Paging
) -> PageRead[AuditEventRead]:
    page = await queries.list_events(caller.tenant_id, wanted=wanted, page=paging)
    return PageRead[AuditEventRead].of(page, AuditEventRead.model_validate)


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
