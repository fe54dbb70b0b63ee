"""What is delivered again long after it was logged: known still, though its id was forgotten."""

from datetime import timedelta

import pytest

from maas.audit.application.events import QueuedEvent
from maas.audit.infrastructure.dedup import prune_dedup
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.settings import Settings
from tests.integration.audit.helpers import Trail, names

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


async def log_long_ago(trail: Trail, *events: QueuedEvent) -> None:
    """Log events and forget their ids, as the prune does after a week."""
    await trail.add(*events)
    await trail.flush().run()
    await trail.superuser.execute(
        "UPDATE audit_dedup SET recorded_at = recorded_at - interval '8 days'"
    )


class TestOldRedeliveries:
    @pytest.mark.parametrize("away", [timedelta(days=-9), timedelta(days=700)])
    @pytest.mark.parametrize("source", ["stream", "outbox"])
    async def test_are_found_in_the_log_itself(
        self, trail: Trail, settings: Settings, source: str, away: timedelta
    ) -> None:
        events = [trail.make(at=SystemClock().now() + away) for _ in range(3)]
        await log_long_ago(trail, *events)
        assert await prune_dedup(settings.database) == (3, False)
        new = trail.make(at=SystemClock().now() + away)

        await (trail.add if source == "stream" else trail.keep)(*events, new)
        report = await trail.flush().run()

        assert (report.written, report.repeated) == (1, 3)
        assert await trail.logged() == names(*events, new)
        assert await trail.nothing_waits()


class TestPrune:
    async def test_forgets_what_is_older_than_a_week_slice_by_slice(
        self, trail: Trail, settings: Settings
    ) -> None:
        await log_long_ago(trail, *(trail.make() for _ in range(25)))
        recent = trail.make()
        await trail.add(recent)
        await trail.flush().run()

        assert await prune_dedup(settings.database, slice_size=10, run_seconds=0) == (0, True)
        assert await prune_dedup(settings.database, slice_size=10) == (25, False)

        left = await trail.superuser.fetch("SELECT event_id::text FROM audit_dedup")
        assert [row["event_id"] for row in left] == names(recent)
