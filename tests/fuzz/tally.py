"""What was asked and what came back, in numbers, and each failure once."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One broken promise of one operation, with a call that shows it."""

    check: str
    operation: str
    status: int
    message: str
    role: str
    curl: str

    @property
    def kind(self) -> tuple[str, str, int]:
        return self.check, self.operation, self.status


@dataclass(slots=True, kw_only=True)
class Tally:
    requests: Counter[str] = field(default_factory=Counter)
    """By role."""
    statuses: Counter[int] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    """Answers below 300, by operation."""
    faults: dict[tuple[str, str, int], Fault] = field(default_factory=dict)
    counts: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """Of each kind of fault."""
    errors: Counter[str] = field(default_factory=Counter)
    """What kept the library from generating or sending."""
    people: int = 0
    slowest: float = 0.0
    slow: int = 0

    @property
    def total(self) -> int:
        return self.requests.total()

    def add(self, fault: Fault) -> None:
        self.counts[fault.kind] += 1
        # The shortest call that shows it is the one to read.
        known = self.faults.get(fault.kind)
        if known is None or len(fault.curl) < len(known.curl):
            self.faults[fault.kind] = fault

    def merge(self, other: "Tally") -> None:
        self.requests += other.requests
        self.statuses += other.statuses
        self.operations += other.operations
        self.reached += other.reached
        self.errors += other.errors
        for kind, fault in other.faults.items():
            known = self.faults.get(kind)
            if known is None or len(fault.curl) < len(known.curl):
                self.faults[kind] = fault
        self.counts += other.counts
        self.people += other.people
        self.slowest = max(self.slowest, other.slowest)
        self.slow += other.slow
