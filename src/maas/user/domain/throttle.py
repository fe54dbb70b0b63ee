"""How long one waits after failed sign-ins: ever longer, and never for good."""

from dataclasses import dataclass
from datetime import timedelta

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
