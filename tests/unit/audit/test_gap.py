"""What nobody could record is told of once, however often the answer to that is lost."""

from typing import Any, cast

import pytest

from maas.audit.application.events import EventComposer, QueuedEvent
from maas.audit.infrastructure.recorder import AuditRecorder, Gap
from maas.audit.public import AuditUnavailableError
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.redis import RedisUnavailableError


class Forgetful:
    """A stream that takes events, and at first does not say so; no database stands behind it."""

    def __init__(self) -> None:
        self.events: list[QueuedEvent] = []
        self.answers = False

    async def append(self, event: QueuedEvent) -> None:
        self.events.append(event)
        if not self.answers:
            raise RedisUnavailableError

    @property
    def reads(self) -> object:
        raise OSError


async def test_a_count_that_was_taken_without_an_answer_is_sent_again_as_the_same_event() -> None:
    server, gap = Forgetful(), Gap(count=3)
    recorder = AuditRecorder(
        composer=EventComposer(SystemClock()),
        stream=cast("Any", server),
        database=cast("Any", server),
        spool=None,
        gap=gap,
    )

    with pytest.raises(AuditUnavailableError):
        await recorder.report_gap()
    gap.widen()
    server.answers = True
    await recorder.report_gap()
    await recorder.report_gap()

    first, again, rest = server.events
    assert first == again
    assert b'"unrecorded":3' in first.payload
    assert b'"unrecorded":1' in rest.payload
    assert gap.count == 0
