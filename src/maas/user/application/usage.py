"""What was used: the ledger's sums, put into the form that was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Protocol
from uuid import UUID

from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import TextPageRequest, TextPosition
from maas.user.domain.usage import Group, GroupKey, UsageFilter, UsageQuestion, plan, write_position


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    currency: str
    cost_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSums:
    """Figures added up; `costs` has one for each currency, in the order of their names."""

    requests: int
    estimated: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    storage_bytes: int
    costs: Sequence[Cost]

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.reasoning_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTally:
    """Rows of one page, one more if others follow, and the sums over those and all others."""

    sums: UsageSums
    rows: Sequence[tuple[GroupKey, UsageSums]]
    total: int | None
    names: dict[UUID, str]
    """What keys and accounts of these rows are called; those that are gone are not in it."""


class UsageLedger(Protocol):
    async def count(self, tenant_id: TenantId, question: UsageQuestion) -> UsageTally:
        """Add up a tenant's calls; all figures are of one moment."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageDetails:
    key: GroupKey
    api_key_name: str | None
    account_name: str | None
    sums: UsageSums


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    since: datetime
    until: datetime
    group_by: Sequence[Group]
    sums: UsageSums
    items: Sequence[UsageDetails]
    next: TextPosition | None
    total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageService:
    ledger: UsageLedger
    clock: Clock

    async def report(
        self,
        tenant_id: TenantId,
        *,
        group_by: Sequence[Group],
        since: datetime | None,
        until: datetime | None,
        wanted: UsageFilter,
        page: TextPageRequest,
    ) -> UsageReport:
        """Add up what was settled, exactly as the ledger has it now.

        Raises:
            UsageNotCountedError: the span is empty or too long, or a group is named twice.
            UsageCursorError: the page before was of other groups.
        """
        question = plan(
            now=self.clock.now(),
            group_by=group_by,
            since=since,
            until=until,
            wanted=wanted,
            limit=page.limit,
            after=page.after,
            include_total=page.include_total,
        )
        tally = await self.ledger.count(tenant_id, question)
        shown = tally.rows[: question.limit]
        has_more = len(tally.rows) > question.limit
        return UsageReport(
            since=_midnight(question.since),
            until=_midnight(question.until),
            group_by=question.groups,
            sums=tally.sums,
            items=[_details(key, sums, tally.names) for key, sums in shown],
            next=write_position(shown[-1][0], question.groups) if has_more else None,
            total=tally.total,
        )


def _details(key: GroupKey, sums: UsageSums, names: dict[UUID, str]) -> UsageDetails:
    return UsageDetails(
        key=key,
        api_key_name=None if key.api_key_id is None else names.get(key.api_key_id),
        account_name=None if key.account_id is None else names.get(key.account_id),
        sums=sums,
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
