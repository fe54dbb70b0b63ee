"""The rule that tells when a budget is used up: each share once, and nothing else."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from maas.audit.domain.rules import BudgetReached
from maas.audit.domain.rules_clues import WatchedEvent
from maas.audit.domain.watch import Point, judge
from maas.shared.domain.ids import DEFAULT_TENANT_ID, new_id

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def reached(share: object, *, resource_id: str = "t") -> WatchedEvent:
    return WatchedEvent(
        id=new_id(),
        tenant_id=DEFAULT_TENANT_ID,
        at=NOON,
        actor_kind="system",
        actor_id=None,
        action="quota.reached",
        resource_kind="tenant",
        resource_id=resource_id,
        outcome="success",
        reason=None,
        actor_name="budgets",
        address=None,
        changes={"before": {}, "after": {"scope": "tenant", "share": share}},
    )


def told(rule: BudgetReached, *events: WatchedEvent) -> dict[str | None, int]:
    """Count alerts by whom they are about."""
    points: dict[str | None, list[Point]] = {}
    for event in events:
        for clue in rule.clues(event):
            points.setdefault(clue.subject.shown_id, []).append(Point(event.at, event.id))
    return {
        subject: len(judge(rule, new=new, old=[], quiet=[]).bursts)
        for subject, new in points.items()
    }


def test_each_share_is_told_also_at_the_same_moment() -> None:
    events = [reached(80), reached(100), reached(80, resource_id="u")]

    assert told(BudgetReached(), *events) == {"t": 2, "u": 1}


def test_who_wants_to_hear_of_the_end_alone_does() -> None:
    assert told(BudgetReached(percent=81), reached(80), reached(100)) == {"t": 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "quota.set"},
        {"outcome": "failure"},
        {"changes": None},
        {"changes": {"before": {}, "after": {}}},
        {"changes": {"before": {}, "after": {"share": "80"}}},
    ],
)
def test_other_events_are_not(fields: dict[str, Any]) -> None:
    assert told(BudgetReached(), replace(reached(100), **fields)) == {}
