"""What calls of a deployment came to over some time, in counts that can be added up anywhere."""

import math
from collections import Counter
from typing import Final

_STEP: Final = math.log(1.1)
"""Times are counted in steps of a tenth, so a percentile is off by a twentieth at most."""


class Figures(Counter[str]):
    """Counts by name: `calls`, `input`, `ms:37` and so on; those of two processes add up."""

    def add_time(self, subject: str, seconds: float) -> None:
        self[f"{subject}:{_step_of(seconds)}"] += 1

    def percentile(self, subject: str, share: float) -> float | None:
        """Tell the time in seconds that such a share of calls did not exceed."""
        prefix = f"{subject}:"
        steps = sorted(
            (int(name.removeprefix(prefix)), count)
            for name, count in self.items()
            if name.startswith(prefix)
        )
        wanted = share * sum(count for _, count in steps)
        for step, count in steps:
            wanted -= count
            if wanted <= 0:
                return math.exp(step * _STEP) / 1000
        return None

    def cost(self) -> dict[str, int]:
        """Tell the cost in nano-units, by currency."""
        prefix = "cost:"
        return {
            name.removeprefix(prefix): nanos
            for name, nanos in sorted(self.items())
            if name.startswith(prefix)
        }


def _step_of(seconds: float) -> int:
    return round(math.log(max(seconds * 1000, 1.0)) / _STEP)
