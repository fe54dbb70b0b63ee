"""Quotas: how much a tenant, an account or a key may use of a meter, in a month or in all."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, NewType
from uuid import UUID

from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.ids import TenantId
from maas.user.public import Meter, Period, Scope

QuotaId = NewType("QuotaId", UUID)

MAX_LIMIT: Final = 2**63 - 1
TOTAL_START: Final = date(1970, 1, 1)
"""When the one period of a total begins."""


class InvalidQuotaError(InvalidInputError):
    code = "invalid-quota"
    title = "Not a quota"


def period_start(period: Period, at: datetime) -> date:
    """Name the period a moment lies in by its first day, in UTC."""
    if period == "total":
        return TOTAL_START
    return at.astimezone(UTC).date().replace(day=1)


def resets_at(period: Period, at: datetime) -> datetime | None:
    """Tell when the period after this one begins; a total has none."""
    if period == "total":
        return None
    first = datetime.combine(period_start(period, at), datetime.min.time(), UTC)
    return (first + timedelta(days=32)).replace(day=1)


@dataclass(eq=False, kw_only=True)
class Quota:
    """A limit on one meter of one subject; `version` counts the changes, for ETags.

    `subject_id` is the tenant's, the account's (of a person or of a service account) or the key's,
    by `scope`. A cost is in nano-units of its currency, which no other meter has. Storage is only
    counted in all. Once made, nothing but the limit changes.

    Raises:
        InvalidQuotaError: the parts do not go together.
    """

    id: QuotaId
    tenant_id: TenantId
    scope: Scope
    subject_id: UUID
    meter: Meter
    period: Period
    currency: str | None
    limit_amount: int
    created_at: datetime
    updated_at: datetime
    version: int = 1

    def __post_init__(self) -> None:
        if (self.meter == "cost") != (self.currency is not None):
            message = "A budget of cost has a currency, and no other quota has one."
            raise InvalidQuotaError(message, loc=("currency",))
        if self.meter == "storage" and self.period != "total":
            message = "Storage is counted in total, not by month."
            raise InvalidQuotaError(message, loc=("period",))
        self._check(self.limit_amount)

    def set_limit(self, limit_amount: int, *, at: datetime) -> None:
        """Bind it to another limit, which may lie below what is used: then nothing more is granted.

        Raises:
            InvalidQuotaError: negative, or past 64 bits.
        """
        self._check(limit_amount)
        self.limit_amount = limit_amount
        self.updated_at = at
        self.version += 1

    @staticmethod
    def _check(limit_amount: int) -> None:
        if not 0 <= limit_amount <= MAX_LIMIT:
            message = "A limit is not negative and fits 64 bits."
            raise InvalidQuotaError(message, loc=("limit",))
