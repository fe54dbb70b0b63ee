"""Counting clues: when there are enough of them in one window, and when enough was said.

Each point is looked at once: what a slice costs grows with its points, and not with their square.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from operator import attrgetter
from typing import Final, TypeAlias
from uuid import UUID

from maas.audit.domain.rules import Rule

MAX_EVENT_IDS: Final = 100

LATENESS: Final = timedelta(days=1)
"""How much longer than its window a point waits, for what comes late."""

SEEN_AGAIN: Final = timedelta(minutes=1)
"""What counts once and was last seen so shortly before is not noted anew: most events are that."""

SPARE_POINTS: Final = 1_000
"""How many points more than the threshold wait at most, the newest; those, too, for late ones."""

_BY_TIME: Final = attrgetter("at", "event_id")


@dataclass(frozen=True, slots=True)
class Point:
    """A clue's place in time; `points_to` is what distinct clues differ in."""

    at: datetime
    event_id: UUID
    points_to: str | None = None


_Window: TypeAlias = "OrderedDict[str | UUID | None, Point]"


@dataclass(frozen=True, slots=True)
class Quiet:
    """A span for which an alert was raised; what happens in it, its end excluded, adds nothing."""

    since: datetime
    until: datetime

    def covers(self, at: datetime) -> bool:
        return self.since <= at < self.until


@dataclass(frozen=True, slots=True)
class Burst:
    """Enough clues in one window. The last that is new set it off, late as it may have come."""

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

    told: set[UUID] = field(default_factory=set)
    """The events of which an alert tells, or that fell into the quiet after one."""


def judge(
    rule: Rule,
    *,
    new: Sequence[Point],
    old: Iterable[Point],
    quiet: Sequence[Quiet],
    told: Container[UUID] = frozenset(),
) -> Verdict:
    """Judge new clues about one subject beside those that wait already.

    They are judged by when they occurred, whenever they come: one that is late can complete a
    window that lies behind. An alert always has a new clue in it whose event is not `told`, that
    is: not known already from an alert about another subject.
    """
    verdict = Verdict()
    known = list(old)
    new = _news(rule, new, known)
    if not new:
        return Verdict(waiting=known)
    fresh = {point.event_id for point in new if point.event_id not in told}
    hushed = _Hushed(quiet)
    window: _Window = OrderedDict()
    kept: dict[UUID, Point] = {}
    fresh_inside = 0
    for point in sorted([*known, *new], key=_BY_TIME):
        if hushed.covers(point.at) or (verdict.quiet and verdict.quiet[-1].covers(point.at)):
            verdict.told.add(point.event_id)
            continue
        gone = _leave(window, point.at - rule.window)
        again = window.pop(_key(rule, point), None)
        if again is not None:
            # What counts once counts by when it was last seen.
            gone.append(again)
            kept.pop(again.event_id)
        window[_key(rule, point)] = kept[point.event_id] = point
        fresh_inside += (point.event_id in fresh) - sum(each.event_id in fresh for each in gone)
        if len(window) < rule.threshold or not fresh_inside:
            continue
        members = list(window.values())
        _tell(rule, verdict, members, fresh)
        for each in members:
            del kept[each.event_id]
        window.clear()
        fresh_inside = 0
    verdict.waiting = _worth_keeping(rule, list(kept.values()), max(each.at for each in new))
    return verdict


def _news(rule: Rule, new: Sequence[Point], known: Sequence[Point]) -> Sequence[Point]:
    """Leave out what counts once and is known of the same minute, or of later."""
    if not rule.is_distinct:
        return new
    last_seen = {point.points_to: point.at for point in known}
    return [
        each
        for each in new
        if each.points_to not in last_seen or each.at - last_seen[each.points_to] >= SEEN_AGAIN
    ]


class _Hushed:
    """Spans that may overlap, asked one after another whether one of them covers a time."""

    def __init__(self, spans: Iterable[Quiet]) -> None:
        ordered = sorted(spans, key=attrgetter("since"))
        self._since = [span.since for span in ordered]
        self._until = list(accumulate((span.until for span in ordered), max))

    def covers(self, at: datetime) -> bool:
        begun = bisect_right(self._since, at)
        return begun > 0 and at < self._until[begun - 1]


def _key(rule: Rule, point: Point) -> str | UUID | None:
    return point.points_to if rule.is_distinct else point.event_id


def _leave(window: _Window, since: datetime) -> list[Point]:
    """Take out what is older."""
    gone = []
    while window and next(iter(window.values())).at < since:
        gone.append(window.popitem(last=False)[1])
    return gone


def _tell(rule: Rule, verdict: Verdict, members: Sequence[Point], fresh: Container[UUID]) -> None:
    first, last = members[0], members[-1]
    ids = tuple(each.event_id for each in members)
    trigger_id = next(each for each in reversed(ids) if each in fresh)
    verdict.bursts.append(Burst(trigger_id, len(members), first.at, last.at, ids[-MAX_EVENT_IDS:]))
    verdict.told.update(ids)
    span = Quiet(first.at, max(rule.quiet_until(last.at), last.at))
    if span.since < span.until:
        verdict.quiet.append(span)


def _worth_keeping(rule: Rule, points: Sequence[Point], newest: datetime) -> list[Point]:
    """Keep what a window may still reach, and no more than so many.

    `newest` is of what was just judged: one event from a clock that ran ahead must not outdate all
    that come after it.
    """
    since = newest - rule.window - LATENESS
    return [each for each in points if each.at >= since][-rule.threshold - SPARE_POINTS :]
