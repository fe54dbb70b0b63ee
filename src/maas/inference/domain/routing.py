"""Which target is asked next, and whether another one may be asked at all.

Times are seconds of one monotonic clock, which is never read here; chance is given as well.
"""

import math
from collections.abc import Sequence
from random import Random
from typing import Final, Literal, NamedTuple, TypeAlias

from maas.inference.domain.circuit import Circuit

AVERAGE_SECONDS: Final = 5.0
"""What came so long ago has a third of its weight left in the average."""

BELIEVED_SECONDS: Final = 60.0
"""An average without a new call in it tells nothing after that."""

CLEARLY_FASTER: Final = 0.8
"""Where latencies differ by less, weights alone decide."""

LONGEST_REST_SECONDS: Final = 60.0
"""What a supplier asks for beyond that is not heeded when targets are chosen."""

Reason: TypeAlias = Literal["only one", "by weight", "faster of two"]


class MovingAverage:
    """Of times to first bytes, by age: many calls at once weigh no more than few."""

    __slots__ = ("_at", "_seconds")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._at = -math.inf

    def add(self, seconds: float, now: float) -> None:
        age = now - self._at
        if age > BELIEVED_SECONDS:
            self._seconds = seconds
        else:
            left = math.exp(-max(age, 0.0) / AVERAGE_SECONDS)
            self._seconds = seconds + (self._seconds - seconds) * left
        self._at = now

    def believed(self, now: float) -> float | None:
        """Tell the average in seconds, unless it is too old."""
        return None if now - self._at > BELIEVED_SECONDS else self._seconds


class TargetHealth:
    """What calls have told of a target; `rests_until` is when it wants to be asked again."""

    __slots__ = ("circuit", "first_byte", "rests_until")

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.first_byte = MovingAverage()
        self.rests_until = -math.inf

    def rest(self, seconds: float, now: float) -> None:
        self.rests_until = max(self.rests_until, now + min(seconds, LONGEST_REST_SECONDS))


class Option(NamedTuple):
    """A target that could be asked; one without a place to spare makes its calls wait."""

    priority: int
    weight: int
    health: TargetHealth
    has_place: bool


class Choice(NamedTuple):
    """`at` is where among the options."""

    at: int
    reason: Reason


def choose(options: Sequence[Option], *, now: float, random: Random) -> Choice | None:
    """Choose who is asked next; `None` if no circuit lets a call through.

    The lowest priority goes first, and in it who has a place before those whose calls wait. Who
    asked to be left alone comes after all others. Among equals two are drawn by weight, each from
    all of them, and the first stands unless the second is clearly faster: so a slow one keeps what
    it is drawn twice for, its share squared, and stays measured.
    """
    group = _first_in_line(options, now)
    if not group:
        return None
    if len(group) == 1:
        return Choice(group[0], "only one")
    first, second = _draw(options, group, random), _draw(options, group, random)
    if first != second:
        mine = options[first].health.first_byte.believed(now)
        other = options[second].health.first_byte.believed(now)
        if mine is not None and other is not None and other < mine * CLEARLY_FASTER:
            return Choice(second, "faster of two")
    return Choice(first, "by weight")


def _first_in_line(options: Sequence[Option], now: float) -> Sequence[int]:
    best: tuple[bool, int, bool] | None = None
    group: list[int] = []
    for at, option in enumerate(options):
        health = option.health
        if not health.circuit.admits(now):
            continue
        tier = (now < health.rests_until, option.priority, not option.has_place)
        if best is None or tier < best:
            best, group = tier, [at]
        elif tier == best:
            group.append(at)
    return group


def _draw(options: Sequence[Option], group: Sequence[int], random: Random) -> int:
    left = random.random() * sum(options[at].weight for at in group)
    for at in group:
        left -= options[at].weight
        if left < 0:
            return at
    # Only rounding leads here.
    return group[-1]


class RetryBudget:
    """How many further tries a route may make: a tenth of its calls, and a few beside them.

    While all is well the tenths add up to `MOST`, for the moment in which many calls fail at once.
    A quiet route has `FEW` again after some seconds, for its tenths would never be a whole try.
    """

    SHARE: Final = 0.1
    MOST: Final = 50.0
    FEW: Final = 10.0
    FEW_A_SECOND: Final = 0.5

    __slots__ = ("_at", "_tries")

    def __init__(self, now: float) -> None:
        self._tries = self.FEW
        self._at = now

    def note_call(self, now: float) -> None:
        self._refill(now)
        self._tries = min(self._tries + self.SHARE, self.MOST)

    def take(self, now: float) -> bool:
        """Take a try, if there is one."""
        self._refill(now)
        if self._tries < 1:
            return False
        self._tries -= 1
        return True

    def _refill(self, now: float) -> None:
        if self._tries < self.FEW:
            gained = max(0.0, now - self._at) * self.FEW_A_SECOND
            self._tries = min(self._tries + gained, self.FEW)
        self._at = now
