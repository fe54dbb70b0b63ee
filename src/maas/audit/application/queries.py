"""What can be asked of the trail, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Literal, Protocol, TypeAlias
from uuid import UUID

from maas.shared.domain.call import Outcome
from maas.shared.domain.errors import NotFoundError
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest


class AuditEventNotFoundError(NotFoundError):
    code = "audit-event-not-found"
    title = "No such audit event"


Order: TypeAlias = Literal["newest", "oldest"]

NEIGHBOURS: Final = 20
"""How many events before and after are shown beside one, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """What the wanted events have in common.

    An `action` that ends with `*` is a prefix; `since` is inclusive, `until` is not; `q` is part of
    the action, the reason, the actor's name or the e-mail address.
    """

    actor_id: UUID | None = None
    action: str | None = None
    resource_kind: str | None = None
    resource_id: str | None = None
    outcome: Outcome | None = None
    address: IPv4Network | IPv6Network | None = None
    request_id: str | None = None
    session_id: UUID | None = None
    api_key_id: UUID | None = None
    q: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorDetails:
    kind: str
    id: UUID | None
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceDetails:
    kind: str
    id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeDetails:
    """Fields before and after; a long value is given as its length and SHA-256."""

    before: Mapping[str, object]
    after: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDetails:
    """One row of the log; personal fields are null once erased, `leaf` and `row_hash` are hex."""

    id: UUID
    seq: int
    occurred_at: datetime
    recorded_at: datetime
    actor: ActorDetails
    action: str
    resource: ResourceDetails | None
    outcome: str
    reason: str | None
    changes: ChangeDetails
    email: str | None
    address: str | None
    user_agent: str | None
    request_id: str
    session_id: UUID | None
    api_key_id: UUID | None
    duration_ms: int | None
    leaf: str
    row_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventNeighbours:
    """One event among others, each list in the order of time.

    `request` are all events of its request but itself, `before` and `after` those of its session;
    the actor's, where it has no session. All are cut to the nearest `NEIGHBOURS`.
    """

    event: EventDetails
    request: list[EventDetails]
    before: list[EventDetails]
    after: list[EventDetails]


class AuditQueries(Protocol):
    async def list_events(
        self,
        tenant_id: TenantId,
        *,
        wanted: EventFilter,
        page: PageRequest,
        order: Order = "newest",
    ) -> Page[EventDetails]:
        """List a tenant's events; an exact total is counted only on request.

        A page may have fewer events than asked for, or none, and yet be followed by another: where
        few of many events fit, a call does not look through all of them.
        """
        ...

    async def get_event(self, tenant_id: TenantId, event_id: UUID) -> EventDetails:
        """Show one event.

        Raises:
            AuditEventNotFoundError: there is none of this id that the tenant may see.
        """
        ...

    async def get_neighbours(self, tenant_id: TenantId, event_id: UUID) -> EventNeighbours:
        """Show one event and what was done around it.

        Raises:
            AuditEventNotFoundError: there is none of this id that the tenant may see.
        """
        ...
