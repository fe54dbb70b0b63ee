"""What the rollups can tell, and how a question is brought into a form they answer exactly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias
from uuid import UUID

from maas.shared.domain.call import Outcome
from maas.shared.domain.errors import InvalidInputError

Subject: TypeAlias = Literal["action", "outcome", "actor"]
Step: TypeAlias = Literal["hour", "day"]
Group: TypeAlias = Literal["action", "outcome", "actor", "hour", "day"]

DEFAULT_SPAN: Final = timedelta(days=30)
MAX_BUCKETS: Final = 1_000
MAX_POINTS: Final = 2_500
"""Buckets times what each is split into; more than a chart can show."""

_LENGTHS: Final[dict[Step, timedelta]] = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_OUTCOMES: Final = 3
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class NotCountedError(InvalidInputError):
    code = "not-counted"
    title = "The trail is not counted in this way"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question that the rollups answer exactly; `plan` makes one of what was asked.

    `since` and `until` lie between two `unit`s, in UTC; `since` is inclusive, `until` is not.
    """

    since: datetime
    until: datetime
    unit: Step
    subject: Subject | None
    step: Step | None
    action: str | None
    outcome: Outcome | None
    actor_id: UUID | None
    limit: int

    @property
    def is_by_actor(self) -> bool:
        return self.subject == "actor" or self.actor_id is not None

    def buckets(self) -> Iterator[datetime]:
        """List when each hour or day of the span begins; none if it is not asked by time."""
        if self.step is not None:
            for number in range((self.until - self.since) // _LENGTHS[self.step]):
                yield self.since + number * _LENGTHS[self.step]


def plan(
    *,
    now: datetime,
    group_by: Sequence[Group],
    since: datetime | None = None,
    until: datetime | None = None,
    action: str | None = None,
    outcome: Outcome | None = None,
    actor_id: UUID | None = None,
    limit: int,
) -> Question:
    """Widen the span to whole hours, or to whole days where days or actors are counted.

    Raises:
        NotCountedError: the span is empty, has too many buckets, or no rollup has these together.
    """
    subject, step = _split(group_by)
    is_by_actor = subject == "actor" or actor_id is not None
    if is_by_actor and step == "hour":
        raise NotCountedError("Actors are counted by day, not by hour.", loc=("query", "group_by"))
    if is_by_actor and (action is not None or subject == "action"):
        raise NotCountedError(
            "Actors and actions are counted apart: leave one of them out, or list the events.",
            loc=("query", "actor_id" if actor_id is not None else "action"),
        )
    unit: Step = "day" if is_by_actor or step == "day" else "hour"
    ended = now if until is None else until
    begun = ended - DEFAULT_SPAN if since is None else since
    if begun >= ended:
        raise NotCountedError(
            "`since` must be before `until`, which is now if left out.", loc=("query", "since")
        )
    length = _LENGTHS[unit]
    question = Question(
        since=max(_EPOCH, begun - (begun - _EPOCH) % length),
        until=ended + (_EPOCH - ended) % length,
        unit=unit,
        subject=subject,
        step=step,
        action=None if action == "*" else action,
        outcome=outcome,
        actor_id=actor_id,
        limit=limit,
    )
    _check_size(question)
    return question


def _split(group_by: Sequence[Group]) -> tuple[Subject | None, Step | None]:
    """Tell by what and by which unit of time it is asked.

    Raises:
        NotCountedError: two of a kind, or the same twice.
    """
    subject: Subject | None = None
    step: Step | None = None
    for group in group_by:
        if group == "hour" or group == "day":  # noqa: PLR1714  narrows the type
            is_free, step = step is None, group
        else:
            is_free, subject = subject is None, group
        if not is_free:
            raise NotCountedError(
                "Group by one of action, outcome and actor, by hour or day, or by one of each.",
                loc=("query", "group_by"),
            )
    return subject, step


def _check_size(question: Question) -> None:
    if question.step is None:
        return
    buckets = (question.until - question.since) // _LENGTHS[question.step]
    if buckets > MAX_BUCKETS:
        raise NotCountedError(
            f"That would be {buckets:,} {question.step}s, and {MAX_BUCKETS:,} is the most:"
            " shorten the span, or group by day.",
            loc=("query", "since"),
        )
    split = {None: 1, "outcome": _OUTCOMES}.get(question.subject, question.limit)
    if buckets * split > MAX_POINTS:
        raise NotCountedError(
            f"{buckets:,} {question.step}s of up to {split} {question.subject}s each are more than"
            f" {MAX_POINTS:,} figures: lower `limit`, shorten the span, or group by day.",
            loc=("query", "limit"),
        )
