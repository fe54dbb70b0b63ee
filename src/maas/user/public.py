"""What other contexts may know of identity and access: roles, members, and who pays for a call."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Literal, NewType, Protocol, Self, TypeAlias
from uuid import UUID

from typing_extensions import override

from maas.audit.public import AuditedResource, ChangeValue, ComposedEvent
from maas.shared.domain.errors import (
    PaymentRequiredError,
    TooManyRequestsError,
    UnavailableError,
)
from maas.shared.domain.ids import AccountId, ApiKeyId, TenantId
from maas.shared.domain.principal import ActorKind, Principal

BUILT_IN_ROLES: dict[str, frozenset[str]] = {
    "admin": frozenset({"*:*"}),
    "developer": frozenset(
        {
            "model:read",
            "model:write",
            "model:delete",
            "provider:read",
            "deployment:*",
            "inference:*",
            "usage:read",
        }
    ),
    "user": frozenset({"model:read", "inference:*"}),
    "auditor": frozenset({"audit:*", "model:read", "user:read", "usage:read"}),
}
"""Seeded in every tenant and protected; the seeds in the migration are checked against these."""

PLATFORM_ADMIN_ROLE = "platform_admin"
PLATFORM_ADMIN_PERMISSIONS = frozenset({"platform:*"})

SELF_PERMISSIONS = frozenset({"self:read", "self:write", "api_key:read", "api_key:write"})
"""What every signed-in person may do with their own account and keys, whatever their roles."""


Meter: TypeAlias = Literal["requests", "tokens", "cost", "storage"]
Scope: TypeAlias = Literal["tenant", "user", "key"]
Period: TypeAlias = Literal["month", "total"]

MAX_CALL_AMOUNT: Final = 10**12
"""Of tokens or requests in one call; the ledger refuses more, whose sums could not be kept."""

MAX_CALL_BYTES: Final = 10**15
MAX_CALL_NANOS: Final = 10**17
EXACT_IN_JSON: Final = 2**53

HoldId = NewType("HoldId", UUID)


def _check_counts(*counts: int, storage_bytes: int) -> None:
    if not all(0 <= count <= MAX_CALL_AMOUNT for count in counts):
        message = f"an amount lies between 0 and {MAX_CALL_AMOUNT}"
        raise ValueError(message)
    if not 0 <= storage_bytes <= MAX_CALL_BYTES:
        message = f"an amount of bytes lies between 0 and {MAX_CALL_BYTES}"
        raise ValueError(message)


def _check_cost(nanos: int, currency: str | None) -> None:
    if not 0 <= nanos <= MAX_CALL_NANOS:
        message = f"a cost lies between 0 and {MAX_CALL_NANOS} nano-units"
        raise ValueError(message)
    if currency is None:
        if nanos:
            message = "a cost needs its currency"
            raise ValueError(message)
    elif len(currency) != 3 or not (currency.isascii() and currency.isupper()):  # noqa: PLR2004  ISO 4217
        message = "a currency is three capital letters, as in ISO 4217"
        raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much of each meter; `tokens` are input, output and reasoning together.

    Without a currency a call has no price, which a budget of money refuses; a free one costs 0 of
    some currency.

    Raises:
        ValueError: negative, past the bounds above, or a cost without its currency.
    """

    requests: int = 1
    tokens: int = 0
    cost_nanos: int = 0
    currency: str | None = None
    storage_bytes: int = 0

    def __post_init__(self) -> None:
        _check_counts(self.requests, self.tokens, storage_bytes=self.storage_bytes)
        _check_cost(self.cost_nanos, self.currency)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFigures:
    """What a call really used, as the ledger keeps it; requests are counted as they were held.

    `cached_tokens` are part of the input, and `reasoning_tokens` come beside the output.

    Raises:
        ValueError: negative, past the bounds above, or a cost without its currency.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    storage_bytes: int = 0
    cost_nanos: int = 0
    currency: str | None = None
    provider: str | None = None

    def __post_init__(self) -> None:
        _check_counts(
            self.input_tokens,
            self.cached_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            storage_bytes=self.storage_bytes,
        )
        _check_cost(self.cost_nanos, self.currency)

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.reasoning_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """Who a call is charged to: each of tenant, account and key may have quotas.

    `account_id` is a person's or a service account's, by `actor_kind`.
    """

    tenant_id: TenantId
    account_id: AccountId
    actor_kind: ActorKind
    api_key_id: ApiKeyId | None = None

    @classmethod
    def of(cls, principal: Principal) -> Self:
        return cls(
            tenant_id=principal.tenant_id,
            account_id=principal.account_id,
            actor_kind=principal.kind,
            api_key_id=principal.api_key_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedAs:
    """What the trail is told of a call whose hold expires, beside what it was settled to.

    `facts` are what is known before it is sent; those outside the resource's list are dropped.
    """

    action: str
    resource: AuditedResource
    resource_id: str
    facts: Mapping[str, ChangeValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What a call may use, set aside in every scope until it is settled, released or expires."""

    id: HoldId
    payer: Payer
    granted: Amounts
    created_at: datetime
    lease_until: datetime


NANO_DIGITS: Final = 9

_HOLDERS: Final[Mapping[Scope, str]] = {"tenant": "tenant", "user": "caller", "key": "API key"}
_UNITS: Final[Mapping[Meter, str]] = {
    "requests": "requests ",
    "tokens": "tokens ",
    "cost": "",
    "storage": "bytes ",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """The quota that does not cover a call, and what that needs; a total is never reset."""

    scope: Scope
    meter: Meter
    period: Period
    limit: int
    used: int
    held: int
    needed: int
    currency: str | None
    resets_at: datetime | None

    @property
    def sentence(self) -> str:
        """Say it to a person: OpenAI's clients show nothing else of a refusal."""
        limit, used, held, needed = map(
            self._amount, (self.limit, self.used, self.held, self.needed)
        )
        span, wait = "in all", ""
        if self.resets_at is not None:
            span, wait = "a month", f"wait for {self.resets_at:%Y-%m-%d}, "
        return (
            f"The quota of the {_HOLDERS[self.scope]} is {limit} {_UNITS[self.meter]}{span}: "
            f"{used} used, {held} set aside for calls under way, and this one may need {needed}. "
            f"Ask for less, {wait}or have the limit raised."
        )

    def _amount(self, amount: int) -> str:
        if self.meter != "cost":
            return f"{amount:,}"
        return f"{Decimal(amount).scaleb(-NANO_DIGITS).normalize():f} {self.currency}"

    @property
    def members(self) -> Mapping[str, object]:
        """Spell it as a problem document does: numbers that JSON would round are strings."""
        return {
            "scope": self.scope,
            "meter": self.meter,
            "period": self.period,
            "limit": exact(self.limit),
            "used": exact(self.used),
            "held": exact(self.held),
            "needed": exact(self.needed),
            "currency": self.currency,
            "resets_at": None
            if self.resets_at is None
            else self.resets_at.isoformat().replace("+00:00", "Z"),
        }


def exact(amount: int) -> int | str:
    """Spell an amount so that whoever reads JSON numbers as floats is told no other."""
    return amount if -EXACT_IN_JSON <= amount <= EXACT_IN_JSON else str(amount)


class QuotaExceededError(TooManyRequestsError):
    code = "quota-exceeded"
    title = "The quota does not cover this"

    def __init__(self, shortage: Shortage, *, retry_after: timedelta | None = None) -> None:
        super().__init__(shortage.sentence, retry_after=retry_after)
        self.shortage = shortage

    @property
    @override
    def extensions(self) -> Mapping[str, object]:
        return self.shortage.members


class BudgetExceededError(PaymentRequiredError):
    code = "budget-exceeded"
    title = "The budget does not cover this"

    def __init__(self, shortage: Shortage, *, retry_after: timedelta | None = None) -> None:
        super().__init__(shortage.sentence, retry_after=retry_after)
        self.shortage = shortage

    @property
    @override
    def extensions(self) -> Mapping[str, object]:
        return self.shortage.members


class BudgetCurrencyError(PaymentRequiredError):
    code = "budget-currency"
    title = "The budget is in another currency"

    def __init__(self) -> None:
        super().__init__(
            "The call has no price, or one in another currency than a budget it is bound by, "
            "which therefore cannot cover it."
        )


class QuotaUnavailableError(UnavailableError):
    code = "quota-unavailable"
    title = "Quotas cannot be checked at the moment"

    def __init__(self) -> None:
        super().__init__("The database of quotas did not answer in time; try again.")


class Members(Protocol):
    """Who is of a tenant, and what they may do there now."""

    async def is_active(self, tenant_id: TenantId, account_id: AccountId) -> bool:
        """Tell whether it is a member or a service account of the tenant that may act now."""
        ...

    async def find_principal(self, payer: Payer) -> Principal | None:
        """Tell what a payer may do now, for what is finished long after it called.

        `None` if it may do nothing any more: the account or the tenant is suspended or gone, or the
        key that it called with is revoked or has expired.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """A call's row in the ledger."""

    settled_at: datetime
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nanos: int
    currency: str | None
    is_estimated: bool
    is_overrun: bool


class Bookings(Protocol):
    """The ledger, call by call."""

    async def find(self, tenant_id: TenantId, hold_id: HoldId, held_at: datetime) -> Booking | None:
        """Look for what a hold was settled to; of one given back there is nothing."""
        ...


class Budgets(Protocol):
    """Sets aside before a call, and books after it; safe to repeat and to cancel at any point.

    For any number of callers and processes, what is settled and held stays within the limit in
    every scope. The figures are PostgreSQL's: whoever got an answer may rely on it.
    """

    async def reserve(
        self,
        payer: Payer,
        wanted: Amounts,
        *,
        least: Amounts | None = None,
        lease: timedelta,
        model: str,
        request_id: str,
        audited_as: AuditedAs | None = None,
    ) -> Hold:
        """Hold `wanted`, or with `least` as much on the way from there to `wanted` as is left.

        All meters are cut in one proportion, so that a price per token stays what it was: hold the
        prompt in `least`, and the prompt with the longest answer in `wanted`. A cost is cut to two
        nano-units more than the tokens granted may cost, for rounding.

        A hold that is `audited_as` something leaves an event of it when it expires.

        Raises:
            QuotaExceededError: a quota does not cover it.
            BudgetExceededError: a budget of money does not.
            BudgetCurrencyError: the call has no price in the currency of a budget.
            QuotaUnavailableError: PostgreSQL did not answer within two seconds; nothing is held, or
                what is held is given back.
        """
        ...

    async def progress(self, hold: Hold, used: Amounts) -> None:
        """Note what was used so far, and begin the lease anew.

        It is what a hold is settled to that expires; of storage, without progress, to nothing: what
        was never settled is not stored. Nothing happens to a hold that is gone.

        Raises:
            QuotaUnavailableError: it could not be noted.
        """
        ...

    async def renew(self, hold: Hold) -> None:
        """Begin the lease anew; what was used so far is as unknown as before.

        Raises:
            QuotaUnavailableError: it could not be noted.
        """
        ...

    async def settle(
        self,
        hold: Hold,
        used: UsageFigures,
        *,
        is_estimated: bool = False,
        event: ComposedEvent | None = None,
    ) -> bool:
        """Book what was used, give back the rest, and write the ledger's row: once, if repeated.

        The event is committed with that row, or not at all.

        More than was held is booked as it is, and closes the quotas that the hold lay on. A hold
        that has expired was booked by then, which stays: then, and of one given back, it is False.

        Raises:
            QuotaUnavailableError: not known to be booked; it is tried further in the background.
        """
        ...

    async def release(self, hold: Hold) -> None:
        """Give all of it back: nothing was used. Nothing happens to a hold that is gone.

        Raises:
            QuotaUnavailableError: not known to be given back; it is tried further.
        """
        ...

    async def book_storage(
        self,
        payer: Payer,
        change: int,
        *,
        booking_id: UUID,
        at: datetime,
        label: str,
        request_id: str,
    ) -> None:
        """Book that the payer stores so many bytes more, or, below 0, has given them back.

        Once for each `booking_id` and moment, however often it is repeated. It is a row of the
        ledger; nothing refuses it, and no limit is told of as reached by it.

        Raises:
            QuotaUnavailableError: not known to be booked.
        """
        ...
