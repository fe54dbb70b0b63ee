"""How long the log keeps events, and what that means for its partitions: a class, a month."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from maas.audit.domain.retention import RetentionClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Events of one class that were recorded in one month; `rows` is an estimate, if known."""

    retention_class: RetentionClass
    period: date
    rows: int | None
    size_bytes: int

    @property
    def label(self) -> str:
        return f"{self.retention_class} {self.period:%Y-%m}"

    @property
    def ends_at(self) -> datetime:
        return datetime.combine(month_after(self.period), time.min, UTC)

    def holds(self, at: datetime) -> bool:
        """Tell whether a time is in its month."""
        return datetime.combine(self.period, time.min, UTC) <= at < self.ends_at


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Days by class, counted from the end of the month; a class without any is kept for ever."""

    days: Mapping[RetentionClass, int]

    def kept_until(self, partition: Partition) -> datetime | None:
        days = self.days.get(partition.retention_class)
        try:
            return None if days is None else partition.ends_at + timedelta(days=days)
        except OverflowError:
            # Longer than there are years; whoever makes partitions may name any month.
            return None

    def is_due(self, partition: Partition, *, at: datetime) -> bool:
        until = self.kept_until(partition)
        return until is not None and until <= at


def month_after(period: date) -> date:
    """Name the first day of the next month."""
    return (period.replace(day=28) + timedelta(days=4)).replace(day=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What the policy means for a partition; `until` is empty where it is kept for ever."""

    partition: Partition
    is_due: bool
    until: datetime | None


def foresee(
    partitions: Sequence[Partition], policy: RetentionPolicy, *, at: datetime
) -> list[Prospect]:
    """Tell what would go now, and what stays until when."""
    return [
        Prospect(
            partition=partition,
            is_due=policy.is_due(partition, at=at),
            until=policy.kept_until(partition),
        )
        for partition in partitions
    ]
