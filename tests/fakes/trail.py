from dataclasses import dataclass, field

from maas.audit.public import AuditScope, ComposedEvent
from maas.audit.wiring import build_event_composer
from maas.shared.domain.call import Call
from maas.shared.infrastructure.clock import SystemClock


@dataclass(slots=True)
class FakeTrail:
    """Composes as the trail does, and keeps what is offered to its stream."""

    is_on: bool = True
    offered: list[ComposedEvent] = field(default_factory=list)

    def compose(self, scope: AuditScope, call: Call) -> ComposedEvent:
        return build_event_composer(SystemClock()).compose(scope, call)

    def offer(self, event: ComposedEvent) -> None:
        self.offered.append(event)
