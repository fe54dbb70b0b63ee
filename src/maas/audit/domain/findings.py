"""What a check of the trail found wrong, and where."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

MAX_KEPT: Final = 1_000


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is not as it was recorded; `seq` is the first row it concerns."""

    seq: int
    subject: str
    what: str


@dataclass(slots=True)
class Findings:
    """Counts all of them and keeps the first thousand."""

    count: int = 0
    _kept: list[Finding] = field(default_factory=list)

    def add(self, seq: int, subject: str, what: str) -> None:
        self.count += 1
        if len(self._kept) < MAX_KEPT:
            self._kept.append(Finding(seq, subject, what))

    def add_row(self, seq: int, what: str) -> None:
        self.add(seq, f"row {seq}", what)

    def __bool__(self) -> bool:
        return self.count > 0

    def __iter__(self) -> Iterator[Finding]:
        """Go through them from the lowest row on."""
        return iter(sorted(self._kept))


def spell_rows(first: int, last: int) -> str:
    return f"row {first}" if first == last else f"rows {first} to {last}"
