"""How long one waits after failed sign-ins: ever longer, and never for good."""

from dataclasses import dataclass
from datetime import datetime, timedelta

FREE_FAILURES = 3
"""From this failure on there is a wait."""

BURST = 7
"""How many guesses of one counter may be under way at once.

With the waits that follow them, that keeps any 15 minutes to ten guesses, however they are spread.
"""

LEASE = timedelta(seconds=30)
"""A guess under way that nobody settled (a killed process) stops counting after this."""

MEMORY = timedelta(hours=24)
"""A counter that saw no failure for so long begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitPolicy:
    """Waits double from `first` to `longest`."""

    first: timedelta
    longest: timedelta

    def wait_after(self, failures: int) -> timedelta:
        if failures < FREE_FAILURES:
            return timedelta()
        # Past this many doublings the longest is reached whatever the first.
        factor: int = 2 ** min(failures - FREE_FAILURES, 40)
        return min(self.first * factor, self.longest)


@dataclass(slots=True, kw_only=True)
class AttemptCounter:
    """The failures of one account, address, or pair of them, and the guesses under way."""

    failures: int
    pending: int
    pending_until: datetime
    blocked_until: datetime

    def lapse(self, at: datetime) -> None:
        """Forget guesses whose lease has run out."""
        if at >= self.pending_until:
            self.pending = 0

    def wait(self, at: datetime) -> timedelta:
        return max(self.blocked_until - at, timedelta())

    def has_room(self, burst: int) -> bool:
        """Tell whether one more guess may run beside those under way."""
        room = burst - self.failures if self.failures < FREE_FAILURES else 1
        return self.pending < room

    def begin(self, at: datetime) -> None:
        self.pending += 1
        self.pending_until = at + LEASE

    def release(self) -> None:
        """End a guess that found out nothing."""
        self.pending = max(self.pending - 1, 0)

    def fail(self, at: datetime, policy: WaitPolicy) -> None:
        self.release()
        self.failures += 1
        self.blocked_until = max(self.blocked_until, at + policy.wait_after(self.failures))

    def forgive(self, at: datetime) -> None:
        """Begin anew: the right password was given where it had been given before."""
        self.release()
        self.failures = 0
        self.blocked_until = at
