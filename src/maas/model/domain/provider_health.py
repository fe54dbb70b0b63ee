"""How a supplier is doing, as the watch sees it."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Self

from maas.model.public import CheckOutcome, HealthStatus

FAILURES_UNTIL_UNHEALTHY: Final = 3
"""In a row: one alone is mostly a hiccup, and whoever is told of hiccups stops listening."""

_TELLS_NOTHING: Final[frozenset[CheckOutcome]] = frozenset({"platform-busy", "rate-limited"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderHealth:
    """`since` is when it came to this status, `outcome` and `duration_ms` of the last check.

    `failures` counts those in a row.
    """

    status: HealthStatus = "unknown"
    outcome: CheckOutcome | None = None
    since: datetime | None = None
    checked_at: datetime | None = None
    duration_ms: int | None = None
    failures: int = 0

    def after(self, outcome: CheckOutcome, *, at: datetime, duration_ms: int) -> Self:
        """Tell what it is after a check: one success makes it healthy, a few failures not."""
        failures = self.failures
        if outcome not in _TELLS_NOTHING:
            failures = 0 if outcome == "ok" else failures + 1
        status: HealthStatus = self.status
        if outcome == "ok":
            status = "healthy"
        elif failures >= FAILURES_UNTIL_UNHEALTHY:
            status = "unhealthy"
        return replace(
            self,
            status=status,
            outcome=outcome,
            since=self.since if status == self.status else at,
            checked_at=at,
            duration_ms=duration_ms,
            failures=failures,
        )


UNKNOWN: Final = ProviderHealth()
