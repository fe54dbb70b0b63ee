"""Which questions the rollups answer, and how figures become what was asked for."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from maas.audit.application.queries import ActorDetails
from maas.audit.application.statistics import Counted, Counts, Statistics, StatisticsService, Tally
from maas.audit.domain.statistics import NotCountedError, Question, plan
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId
from tests.fakes.clock import FakeClock

NOW = datetime(2026, 11, 22, 5, 17, 3, tzinfo=UTC)
SOMEBODY = UUID(int=7)


def at(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def planned(group_by: Sequence[Any] = ("action",), **asked: Any) -> Question:
    return plan(**{"now": NOW, "group_by": group_by, "limit": 20, **asked})


class TestRefused:
    @pytest.mark.parametrize(
        ("asked", "where"),
        [
            ({"since": at(3), "until": at(2)}, "since"),
            ({"since": at(3), "until": at(3)}, "since"),
            ({"since": NOW + timedelta(hours=1)}, "since"),
            ({"group_by": ["hour", "day"]}, "group_by"),
            ({"group_by": ["action", "outcome"]}, "group_by"),
            ({"group_by": ["action", "action"]}, "group_by"),
            ({"group_by": ["actor", "hour"]}, "group_by"),
            ({"group_by": ["hour"], "actor_id": SOMEBODY}, "group_by"),
            ({"group_by": ["actor"], "action": "auth.*"}, "action"),
            ({"group_by": ["action"], "actor_id": SOMEBODY}, "actor_id"),
            ({"group_by": ["day"], "actor_id": SOMEBODY, "action": "auth.*"}, "actor_id"),
            ({"group_by": ["hour"], "since": NOW - timedelta(hours=1_000)}, "since"),
            ({"group_by": ["day"], "since": NOW - timedelta(days=1_000)}, "since"),
            ({"group_by": ["hour", "action"]}, "limit"),
        ],
        ids=str,
    )
    def test_is_what_no_rollup_has(self, asked: dict[str, Any], where: str) -> None:
        with pytest.raises(NotCountedError) as refused:
            planned(**asked)

        assert refused.value.loc == ("query", where)

    def test_the_message_says_what_to_do(self) -> None:
        with pytest.raises(NotCountedError, match=r"8,760 hours.*1,000 is the most: shorten"):
            planned(["hour"], since=at(1) - timedelta(days=365), until=at(1))


class TestSpan:
    def test_is_the_last_thirty_days_in_whole_hours(self) -> None:
        question = planned()

        assert (question.since, question.until) == (
            datetime(2026, 10, 23, 5, tzinfo=UTC),
            at(22, 6),
        )

    @pytest.mark.parametrize(
        "asked",
        [{"group_by": ["day"]}, {"group_by": ["actor"]}, {"group_by": [], "actor_id": SOMEBODY}],
        ids=str,
    )
    def test_is_of_whole_days_where_days_or_actors_are_counted(self, asked: dict[str, Any]) -> None:
        question = planned(**asked)

        assert (question.since, question.until) == (datetime(2026, 10, 23, tzinfo=UTC), at(23))

    def test_that_is_whole_stays_as_it_is(self) -> None:
        question = planned(since=at(2, 7), until=at(3, 8))

        assert (question.since, question.until) == (at(2, 7), at(3, 8))

    def test_never_begins_before_time_does(self) -> None:
        beginning = datetime(1970, 1, 1, tzinfo=UTC)

        assert planned(until=beginning + timedelta(minutes=1)).since == beginning

    def test_of_a_thousand_hours_is_counted_by_the_hour(self) -> None:
        question = planned(["hour"], since=at(1), until=at(1) + timedelta(hours=1_000))

        assert len(list(question.buckets())) == 1_000


class FakeRollups:
    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    async def count(self, tenant_id: TenantId, question: Question) -> Tally:  # noqa: ARG002  the port's
        return self.tally


async def answer(tally: Tally, **asked: Any) -> Statistics:
    service = StatisticsService(rollups=FakeRollups(tally), clock=FakeClock(NOW))
    return await service.count(DEFAULT_TENANT_ID, **{"limit": 20, **asked})


class TestAnswer:
    async def test_fills_hours_without_events_with_zeros(self) -> None:
        counts = Counts(5, 1, 0)
        tally = Tally(total=counts, keys=1, rows=[Counted(at(2, 1), None, counts)])

        found = await answer(tally, group_by=["hour"], since=at(2), until=at(2, 3))

        assert [(item.at, item.events) for item in found.items] == [
            (at(2, 0), 0), (at(2, 1), 6), (at(2, 2), 0),
        ]  # fmt: skip
        assert (found.total, found.groups, found.other_events) == (6, 3, 0)

    async def test_tells_a_trend_of_each_key_and_how_much_others_have(self) -> None:
        rows = [Counted(at(3), "b.c", Counts(4)), Counted(at(2), "a.b", Counts(1, 1))]
        tally = Tally(total=Counts(8, 1), keys=3, rows=rows)

        found = await answer(tally, group_by=["day", "action"], since=at(2), until=at(4), limit=2)

        assert [(item.action, item.at, item.events) for item in found.items] == [
            ("b.c", at(2), 0), ("b.c", at(3), 4), ("a.b", at(2), 2), ("a.b", at(3), 0),
        ]  # fmt: skip
        assert (found.total, found.groups, found.other_events) == (9, 3, 3)

    async def test_splits_by_outcome(self) -> None:
        counts = Counts(5, 1, 0)
        tally = Tally(total=counts, keys=1, rows=[Counted(None, None, counts)])

        found = await answer(tally, group_by=["outcome"])

        assert [(item.outcome, item.events) for item in found.items] == [
            ("success", 5), ("failure", 1), ("denied", 0),
        ]  # fmt: skip

    async def test_counts_one_outcome_alone_where_that_is_asked(self) -> None:
        counts = Counts(5, 1, 2)
        ada = ActorDetails(kind="account", id=SOMEBODY, name="ada")
        tally = Tally(total=counts, keys=1, rows=[Counted(None, ada, counts)])

        found = await answer(tally, group_by=["actor"], outcome="denied")

        assert (found.total, found.outcomes) == (2, Counts(0, 0, 2))
        assert [(item.actor, item.events) for item in found.items] == [(ada, 2)]

    async def test_of_nothing_is_zero(self) -> None:
        nothing = Tally(total=Counts(), keys=0, rows=[])

        found = await answer(nothing, group_by=["action"])
        by_outcome = await answer(nothing, group_by=["outcome", "day"], since=at(2), until=at(3))

        assert (found.total, found.items, found.groups, found.other_events) == (0, [], 0, 0)
        assert [item.events for item in by_outcome.items] == [0, 0, 0]
