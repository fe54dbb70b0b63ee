"""The trail in figures: what the rollups hold, put into the form that was asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeAlias
from uuid import UUID

from maas.audit.application.queries import ActorDetails
from maas.audit.domain.statistics import Group, Question, plan
from maas.shared.domain.call import Outcome
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import TenantId

OUTCOMES: Final[tuple[Outcome, ...]] = ("success", "failure", "denied")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many events, by outcome."""

    success: int = 0
    failure: int = 0
    denied: int = 0

    @property
    def events(self) -> int:
        return self.success + self.failure + self.denied

    def only(self, outcome: Outcome | None) -> "Counts":
        if outcome is None:
            return self
        return Counts(**{outcome: getattr(self, outcome)})


Key: TypeAlias = str | ActorDetails | None
"""An action, an actor, or nothing where only time was asked for."""


@dataclass(frozen=True, slots=True)
class Counted:
    """One row of figures; of one bucket, one key, or one of both."""

    at: datetime | None
    key: Key
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Rows of the most frequent keys, in order, and the sum over those and all others."""

    total: Counts
    keys: int
    rows: Sequence[Counted]


class Rollups(Protocol):
    async def count(self, tenant_id: TenantId, question: Question) -> Tally:
        """Count a tenant's events; all figures are of one moment.

        An outcome that is asked for decides which keys are the most frequent; rows tell all
        outcomes.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticDetails:
    """How many events have in common what is not null here."""

    at: datetime | None
    action: str | None
    actor: ActorDetails | None
    outcome: Outcome | None
    events: int
    outcomes: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    since: datetime
    until: datetime
    group_by: Sequence[Group]
    total: int
    outcomes: Counts
    groups: int
    items: Sequence[StatisticDetails]

    @property
    def other_events(self) -> int:
        return self.total - sum(item.events for item in self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsService:
    rollups: Rollups
    clock: Clock

    async def count(
        self,
        tenant_id: TenantId,
        *,
        group_by: Sequence[Group] | None = None,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
        action: str | None = None,
        outcome: Outcome | None = None,
        actor_id: UUID | None = None,
    ) -> Statistics:
        """Count a tenant's events, exactly as the log has them now.

        Not told by what, by action, or of one actor by day.

        Raises:
            NotCountedError: the rollups do not answer this; it says what they do.
        """
        if group_by is None:
            group_by = ["action"] if actor_id is None else ["day"]
        question = plan(
            now=self.clock.now(),
            group_by=group_by,
            since=since,
            until=until,
            action=action,
            outcome=outcome,
            actor_id=actor_id,
            limit=limit,
        )
        tally = await self.rollups.count(tenant_id, question)
        total = tally.total.only(outcome)
        items = list(_items(question, tally))
        is_by_key = question.subject in {"action", "actor"}
        return Statistics(
            since=question.since,
            until=question.until,
            group_by=group_by,
            total=total.events,
            outcomes=total,
            groups=tally.keys if is_by_key else len(items),
            items=items,
        )


def _items(question: Question, tally: Tally) -> Iterator[StatisticDetails]:
    """Go through what was asked for: by key and then by time, with zeros where nothing was."""
    rows = {(row.at, row.key): row.counts for row in tally.rows}
    keys: list[Key] = list(dict.fromkeys(row.key for row in tally.rows))
    if question.subject in {None, "outcome"}:
        keys = [None]
    times: list[datetime | None] = [*question.buckets()] or [None]
    for key in keys:
        for at in times:
            counts = rows.get((at, key), Counts()).only(question.outcome)
            if question.subject == "outcome":
                yield from _by_outcome(question, at, counts)
            elif question.subject is not None or question.step is not None:
                yield _item(at, key, None, counts)


def _by_outcome(
    question: Question, at: datetime | None, counts: Counts
) -> Iterator[StatisticDetails]:
    for outcome in OUTCOMES:
        if question.outcome in {None, outcome}:
            yield _item(at, None, outcome, counts.only(outcome))


def _item(
    at: datetime | None, key: Key, outcome: Outcome | None, counts: Counts
) -> StatisticDetails:
    return StatisticDetails(
        at=at,
        action=key if isinstance(key, str) else None,
        actor=key if isinstance(key, ActorDetails) else None,
        outcome=outcome,
        events=counts.events,
        outcomes=counts,
    )
