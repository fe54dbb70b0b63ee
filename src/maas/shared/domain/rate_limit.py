"""How often somebody may ask: a bucket of requests that fills again at a steady pace.

A bucket is kept as one moment, at which it will be full again (GCRA). It lies in the past for
whoever has not asked for a while, and never further ahead than an empty bucket takes to fill.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, TypeAlias

from typing_extensions import override

from maas.shared.domain.errors import TooManyRequestsError

RouteClass: TypeAlias = Literal["default", "admin", "auth", "upload", "inference"]
"""What an account has a bucket for, each."""

StrangerClass: TypeAlias = Literal["address", "public", "refresh", "bad-key"]
"""What an address has a bucket for, each: who does one thing uses up nothing of another."""

MICROSECONDS = 1_000_000
MINUTE, HOUR = 60, 3600

_WINDOWS = {MINUTE: "a minute", HOUR: "an hour"}
_WHOSE = {
    "address": "from your address without a good credential",
    "public": "to sign in and the like from your address",
    "refresh": "with bad refresh tokens from your address",
    "bad-key": "with bad API keys from your address",
    "registration": "to register from your address",
    "key": "with this API key",
}
_ADVICE = {
    "address": " Sign in or use an API key for a limit of your own.",
    "key": " Its `requests_per_minute` is the holder's to raise.",
}


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in a window: all of them at once after a pause, then one by one.

    `name` is what the `RateLimit` fields call it.
    """

    name: str
    quota: int
    window_seconds: int
    interval_us: int = field(init=False)
    span_us: int = field(init=False)
    policy: str = field(init=False)

    def __post_init__(self) -> None:
        # Rounded up: in the long run never more than the quota, and after a pause exactly it.
        interval = math.ceil(self.window_seconds * MICROSECONDS / self.quota)
        object.__setattr__(self, "interval_us", interval)
        object.__setattr__(self, "span_us", interval * self.quota)
        policy = f'"{self.name}";q={self.quota};w={self.window_seconds}'
        object.__setattr__(self, "policy", policy)

    def shared_by(self, processes: int) -> "Rate":
        """Cut it to one process's part, where processes cannot count together."""
        if processes == 1:
            return self
        return Rate(self.name, math.ceil(self.quota / processes), self.window_seconds)


@dataclass(frozen=True, slots=True)
class Level:
    """How full a bucket is once a request was counted.

    `left` is -1 where there was no room for the request; `wait_us` is how long until there is for
    one more, 0 if there is now.
    """

    rate: Rate
    left: int
    wait_us: int

    @property
    def available(self) -> int:
        return max(0, self.left)

    @property
    def pace_seconds(self) -> int:
        """In how many seconds no more than `available` may be used up, to be let on and on.

        What is left, at the pace of the rate: a client that keeps to it is never refused.
        """
        wait = self.wait_us if self.left <= 0 else self.left * self.rate.interval_us
        return math.ceil(wait / MICROSECONDS)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the limits made of a request; `is_news` if a refusal is the subject's first in a minute.

    `buckets` names what was counted on, as long as it was counted; `is_local` if this process alone
    did so, `is_of_address` if nobody vouched for the request.
    """

    levels: Sequence[Level]
    is_news: bool
    buckets: Sequence[str]
    is_local: bool = False
    is_of_address: bool = False

    @property
    def is_exceeded(self) -> bool:
        return any(level.left < 0 for level in self.levels)

    @property
    def exceeded(self) -> Sequence[Rate]:
        return [level.rate for level in self.levels if level.left < 0]


class RateLimitedError(TooManyRequestsError):
    """More requests than the limits let through; `RateLimit` tells how many are left."""

    code = "rate-limited"
    title = "Too many requests in a short time"

    def __init__(self, standing: Standing) -> None:
        waits = [level.wait_us for level in standing.levels if level.left <= 0]
        wait = timedelta(microseconds=max(waits, default=0))
        rate = standing.exceeded[0]
        self.policies = [each.name for each in standing.exceeded]
        whose = _WHOSE.get(rate.name, "of your account on this class of routes")
        advice = _ADVICE.get(rate.name, "")
        super().__init__(
            f"More than {rate.quota} requests {_WINDOWS[rate.window_seconds]} {whose}. Wait as "
            "long as Retry-After says, then go on more slowly: the RateLimit fields of every "
            f"answer tell how much is left.{advice}",
            retry_after=wait,
        )

    @property
    @override
    def extensions(self) -> dict[str, object]:
        return {"violated-policies": self.policies}


def refill(full_at: int, now: int, rate: Rate) -> int:
    """Bring a bucket to this moment: it is never more than full, nor emptier than empty.

    So a clock that is set back holds nobody for longer than one request takes to come back.
    """
    return min(max(full_at, now), now + rate.span_us)


def has_room(full_at: int, now: int, rate: Rate) -> bool:
    return full_at + rate.interval_us <= now + rate.span_us


def level_of(full_at: int, now: int, rate: Rate) -> tuple[int, int]:
    """Tell how many requests are left, and how long until there is one more, if there is none."""
    left = (now + rate.span_us - full_at) // rate.interval_us
    wait = 0 if left > 0 else full_at + rate.interval_us - rate.span_us - now
    return left, wait
