"""How an act becomes an event: what the scope and the call know, at this moment."""

import secrets
from dataclasses import dataclass
from functools import cached_property

from maas.audit.domain.event import SALT_BYTES, AuditEvent, PersonalFields
from maas.audit.public import Actor, AuditScope
from maas.shared.domain.call import Call
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import DEFAULT_TENANT_ID, EventId, TenantId, new_id


@dataclass(frozen=True, kw_only=True)
class QueuedEvent:
    """An event on its way to the log, its bytes fixed for good."""

    id: EventId
    tenant_id: TenantId
    payload: bytes
    personal: PersonalFields
    duration_ms: int | None

    # Written for PostgreSQL, and then for the stream.
    @cached_property
    def personal_json(self) -> str:
        return self.personal.to_json()


@dataclass(frozen=True, slots=True)
class EventComposer:
    """Composes each event once, from what is known when its fate is."""

    clock: Clock

    def compose(self, scope: AuditScope, call: Call) -> QueuedEvent:
        """Fix the event's bytes; what belongs to no tenant goes to the default one."""
        actor = scope.actor or _actor_of(call)
        principal = call.principal
        personal = PersonalFields(
            salt=secrets.token_bytes(SALT_BYTES),
            actor_name=actor.name,
            email=scope.email,
            address=call.address,
            user_agent=call.user_agent,
        )
        event = AuditEvent(
            id=EventId(new_id()),
            occurred_at=self.clock.now(),
            tenant_id=scope.tenant_id or call.tenant_id or DEFAULT_TENANT_ID,
            actor_kind=actor.kind,
            actor_id=actor.id,
            session_id=principal.session_id if principal else None,
            api_key_id=principal.api_key_id if principal else None,
            action=scope.action,
            outcome=scope.outcome,
            reason=scope.reason,
            request_id=call.request_id,
            resource_kind=scope.resource_kind,
            resource_id=scope.resource_id,
            before=scope.before,
            after=scope.after,
            personal=personal,
        )
        return QueuedEvent(
            id=event.id,
            tenant_id=event.tenant_id,
            payload=event.payload(),
            personal=personal,
            duration_ms=scope.duration_ms,
        )


def _actor_of(call: Call) -> Actor:
    principal = call.principal
    if principal is None:
        return Actor("anonymous", None)
    return Actor(principal.kind, principal.account_id, principal.username)
