"""Counting clues: when there are enough of them in one window, and when enough was said."""

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Final
from uuid import UUID

from maas.audit.domain.rules import Rule

MAX_EVENT_IDS: Final = 100

_BY_TIME: Final = attrgetter("at", "event_id")


@dataclass(frozen=True, slots=True)
class Point:
    """A clue's place in time; `points_to` is what distinct clues differ in."""

    at: datetime
    event_id: UUID
    points_to: str | None = None


@dataclass(frozen=True, slots=True)
class Quiet:
    """A span for which an alert was raised; what happens in it, its end excluded, adds nothing."""

    since: datetime
    until: datetime

    def covers(self, at: datetime) -> bool:
        return self.since <= at < self.until


@dataclass(frozen=True, slots=True)
class Burst:
    """Enough clues in one window. The last to be judged set it off, late as it may have come."""

    trigger_id: UUID
    count: int
    first_at: datetime
    last_at: datetime
    event_ids: tuple[UUID, ...]


@dataclass(slots=True)
class Verdict:
    """What became of the clues about one subject."""

    bursts: list[Burst] = field(default_factory=list)
    quiet: list[Quiet] = field(default_factory=list)
    waiting: list[Point] = field(default_factory=list)
    """What may add up with what is still to come, old points and new ones."""


def judge(
    rule: Rule, *, new: Iterable[Point], old: Iterable[Point], quiet: Sequence[Quiet]
) -> Verdict:
    """Judge new clues about one subject beside those that wait already.

    They are judged by when they occurred, whenever they come: one that is late can complete a
    window that lies behind. An alert always has a new clue in it.
    """
    verdict = Verdict(waiting=sorted(old, key=_BY_TIME))
    for point in sorted(new, key=_BY_TIME):
        if any(span.covers(point.at) for span in (*quiet, *verdict.quiet)):
            continue
        if rule.is_distinct and not _supersedes(verdict.waiting, point):
            continue
        insort(verdict.waiting, point, key=_BY_TIME)
        members = _window_with(rule, verdict.waiting, point)
        if members is None:
            continue
        first, last = members[0], members[-1]
        verdict.bursts.append(
            Burst(
                point.event_id,
                len(members),
                first.at,
                last.at,
                tuple(each.event_id for each in members[-MAX_EVENT_IDS:]),
            )
        )
        span = Quiet(first.at, max(rule.quiet_until(last.at), last.at))
        if span.since < span.until:
            verdict.quiet.append(span)
        said = set(members)
        verdict.waiting = [
            each for each in verdict.waiting if each not in said and not span.covers(each.at)
        ]
    return verdict


def _supersedes(waiting: list[Point], point: Point) -> bool:
    """Forget an older clue that points to the same; False if a newer one is known.

    What counts once counts by when it was last seen.
    """
    for known in waiting:
        if known.points_to == point.points_to:
            if known.at > point.at:
                return False
            waiting.remove(known)
            return True
    return True


def _window_with(rule: Rule, waiting: Sequence[Point], point: Point) -> list[Point] | None:
    """Find the first window with enough clues in it, this one among them."""
    for end in waiting:
        if not point.at <= end.at <= point.at + rule.window:
            continue
        members = [each for each in waiting if end.at - rule.window <= each.at <= end.at]
        if len(members) >= rule.threshold:
            return members
    return None
