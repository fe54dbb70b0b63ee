import time
from collections.abc import Mapping

import pytest
from structlog.testing import capture_logs

from maas.audit.infrastructure.backlog import BacklogWatch


class Figures:
    """What the watch reads, and how often it did."""

    def __init__(self, **values: float) -> None:
        self.values = values
        self.reads = 0

    async def read(self) -> Mapping[str, float]:
        self.reads += 1
        return self.values


class TestStatus:
    @pytest.mark.parametrize(
        "figures",
        [
            {"stream_entries": 100},
            {"stream_entries": 60, "outbox_rows": 30, "spool_records": 10},
            {"stream_entries": 1, "stream_oldest_seconds": 30.1},
            {"outbox_rows": 1, "outbox_oldest_seconds": 31},
        ],
    )
    async def test_is_behind_when_too_much_or_too_long_waits(
        self, figures: dict[str, float]
    ) -> None:
        assert await BacklogWatch(Figures(**figures).read, high_water=100).status() == "behind"

    @pytest.mark.parametrize(
        "figures",
        [{}, {"stream_entries": 99, "stream_oldest_seconds": 29}, {"dead_letters": 5}],
    )
    async def test_is_up_otherwise(self, figures: dict[str, float]) -> None:
        assert await BacklogWatch(Figures(**figures).read, high_water=100).status() == "up"

    async def test_is_not_looked_up_for_every_question(self) -> None:
        figures = Figures()
        watch = BacklogWatch(figures.read, high_water=100)

        for _ in range(5):
            await watch.status()

        assert figures.reads == 1


class TestAlarm:
    async def test_is_raised_at_once_and_then_once_a_minute(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 1_000.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        figures = Figures(stream_entries=250, stream_oldest_seconds=3.21, dead_letters=2)
        watch = BacklogWatch(figures.read, high_water=100)

        with capture_logs() as lines:
            for _ in range(3):
                await watch.look()
            now += 61
            await watch.look()

        assert [line["log_level"] for line in lines] == ["error"] * 4
        assert lines[:2] == [
            {
                "event": "audit_backlog_high",
                "entries": 250,
                "oldest_seconds": 3.2,
                "log_level": "error",
            },
            {"event": "audit_dead_letters", "entries": 2, "log_level": "error"},
        ]

    async def test_is_silent_in_calm(self) -> None:
        with capture_logs() as lines:
            await BacklogWatch(Figures(stream_entries=3).read, high_water=100).look()

        assert lines == []
