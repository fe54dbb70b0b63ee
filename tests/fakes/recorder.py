from dataclasses import dataclass, field

from maas.shared.domain.call import Call, Outcome


@dataclass(slots=True)
class FakeRecorder:
    """Keeps what would have been recorded, in order."""

    events: list[tuple[str, Outcome, str | None]] = field(default_factory=list)

    async def record(self, *, action: str, outcome: Outcome, reason: str | None = None) -> None:
        self.events.append((action, outcome, reason))


def make_call(recorder: FakeRecorder | None = None) -> Call:
    return Call(request_id="test", recorder=recorder or FakeRecorder())
