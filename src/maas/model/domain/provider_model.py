"""A supplier's model as a tenant may call it, and what it costs from when on."""

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, Protocol, TypedDict

from typing_extensions import Unpack, override

from maas.model.public import Capability, PriceId, ProviderId, ProviderModelId, ProviderStatus
from maas.shared.domain.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RuleViolatedError,
)
from maas.shared.domain.ids import AccountId, TenantId

MAX_PROVIDER_MODELS: Final = 2_000
"""Of one provider, deleted ones not counted; the longest lists of suppliers have some hundreds."""

MAX_PRICES: Final = 10_000
"""Of one model: a new one each hour for more than a year."""

MAX_CURRENCIES: Final = 20
"""Of one model: what holds at a moment is one price of each."""

MAX_MODEL_NAME_CHARS: Final = 200
MAX_TOKENS: Final = 1_000_000_000
MAX_PRICE_CHARS: Final = 22

_NAME = re.compile(r"[\x21-\x7e]{1,200}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_PRICE = re.compile(r"(\d{1,9})(?:\.(\d{1,12}))?", re.ASCII)


class ProviderModelNotFoundError(NotFoundError):
    code = "provider-model-not-found"
    title = "The provider has no such model here"


class ProviderModelTakenError(ConflictError):
    code = "provider-model-taken"
    title = "The provider has this model already"

    def __init__(self) -> None:
        super().__init__("A model of this name was added before: change that one.")


class TooManyProviderModelsError(RuleViolatedError):
    code = "too-many-provider-models"
    title = "The provider has as many models as it may"

    def __init__(self) -> None:
        super().__init__(
            f"A provider has at most {MAX_PROVIDER_MODELS} models here: delete one first."
        )


class InvalidProviderModelNameError(InvalidInputError):
    code = "invalid-provider-model-name"
    title = "Not a name of a supplier's model"

    def __init__(self) -> None:
        super().__init__(
            f"Write the name as the supplier does: 1 to {MAX_MODEL_NAME_CHARS} visible ASCII "
            "characters, no spaces."
        )


class InvalidCurrencyError(InvalidInputError):
    code = "invalid-currency"
    title = "Not a currency"

    def __init__(self) -> None:
        super().__init__("A currency is its ISO 4217 code, as in USD, EUR or CNY.")


class InvalidUnitPriceError(InvalidInputError):
    code = "invalid-unit-price"
    title = "Not a price"

    def __init__(self) -> None:
        super().__init__(
            "A price is a string with a decimal of up to 9 digits and 12 more after the point, "
            "as in 2.5 or 0.000004."
        )


class PriceInThePastError(InvalidInputError):
    code = "price-in-the-past"
    title = "A price cannot hold from a time that is past"

    def __init__(self) -> None:
        super().__init__(
            "Calls since then are charged already: leave `valid_from` out, and it holds from now.",
            loc=("body", "valid_from"),
        )


class TooManyPricesError(RuleViolatedError):
    code = "too-many-prices"
    title = "The model had as many prices as it may"

    def __init__(self) -> None:
        super().__init__(f"A model has at most {MAX_PRICES} prices in all: add it anew.")


class TooManyCurrenciesError(RuleViolatedError):
    code = "too-many-currencies"
    title = "The model has prices in as many currencies as it may"

    def __init__(self) -> None:
        super().__init__(
            f"A model has prices in at most {MAX_CURRENCIES} currencies: set one in one of these."
        )


class PriceNotFoundError(NotFoundError):
    code = "price-not-found"
    title = "The model has no such price"


@dataclass(frozen=True, slots=True)
class ProviderModelName:
    """What the supplier calls it, as in `gpt-4o` or `deepseek-ai/DeepSeek-V3`."""

    value: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.value):
            raise InvalidProviderModelNameError

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Currency:
    """An ISO 4217 code; which there are, changes too often to be kept here."""

    value: str

    def __post_init__(self) -> None:
        if not _CURRENCY.fullmatch(self.value):
            raise InvalidCurrencyError

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class UnitPrice:
    """A price as a decimal, in its shortest spelling: `2.50` is `2.5`.

    What it is for, a million tokens or a request, the field says that holds it.
    """

    value: str

    def __post_init__(self) -> None:
        match = _PRICE.fullmatch(self.value)
        if match is None:
            raise InvalidUnitPriceError
        whole, fraction = match[1].lstrip("0") or "0", (match[2] or "").rstrip("0")
        object.__setattr__(self, "value", f"{whole}.{fraction}" if fraction else whole)

    @classmethod
    def of(cls, amount: Decimal) -> "UnitPrice":
        """Read it from a decimal, as databases give it.

        Raises:
            InvalidUnitPriceError: negative, too large or too fine.
        """
        return cls(f"{amount:f}")

    @property
    def amount(self) -> Decimal:
        return Decimal(self.value)

    @override
    def __str__(self) -> str:
        return self.value


class ProviderModelChanges(TypedDict, total=False):
    """What may be revised; what is absent stays. A name is fixed: prices were set for it."""

    capabilities: list[Capability]
    context_length: int | None
    max_output_tokens: int | None
    status: ProviderStatus


@dataclass(eq=False, kw_only=True)
class ProviderModel:
    """One model of a supplier. Lengths are in tokens; `revision` counts the changes, for ETags."""

    id: ProviderModelId
    provider_id: ProviderId
    tenant_id: TenantId
    name: ProviderModelName
    capabilities: list[Capability]
    context_length: int | None = None
    max_output_tokens: int | None = None
    status: ProviderStatus = "active"
    created_by: AccountId
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    revision: int = 1

    def revise(self, *, at: datetime, **changes: Unpack[ProviderModelChanges]) -> None:
        """Set what is given, leave the rest; what changes nothing leaves the revision as it is."""
        if all(getattr(self, name) == to for name, to in changes.items()):
            return
        for name, to in changes.items():
            setattr(self, name, to)
        self._touch(at)

    def delete(self, *, at: datetime) -> None:
        """Take it out of sight; its name is free again, and its prices stay on record."""
        self.deleted_at = at
        self._touch(at)

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.revision += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs in one currency from `valid_from` on, until another price holds.

    `input` to `reasoning` are for a million tokens, `request` is for each call. Without a price of
    their own, cached tokens cost what input costs, and reasoning what output costs. Of two prices
    from the same moment the one set later holds.
    """

    id: PriceId
    model_id: ProviderModelId
    provider_id: ProviderId
    tenant_id: TenantId
    currency: Currency
    input: UnitPrice
    output: UnitPrice
    cached: UnitPrice | None = None
    reasoning: UnitPrice | None = None
    request: UnitPrice | None = None
    valid_from: datetime
    created_by: AccountId
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PricesSoFar:
    """A model's prices when one more is set.

    `now` is the database's time, one clock for all processes, and later than the moment any of them
    was set at, so that of two prices that hold at once the one set later holds from later.
    """

    count: int
    currencies: frozenset[str]
    now: datetime


class ProviderModelRepository(Protocol):
    """Finds the models of the tenant's own providers."""

    async def get(self, provider_id: ProviderId, model_id: ProviderModelId) -> ProviderModel:
        """Load the model, locked.

        Raises:
            ProviderModelNotFoundError: not there, deleted, or another provider's.
        """
        ...

    async def is_name_taken(self, provider_id: ProviderId, name: ProviderModelName) -> bool: ...

    async def count(self, provider_id: ProviderId) -> int: ...

    def add(self, model: ProviderModel) -> None: ...

    async def prices_so_far(self, model_id: ProviderModelId) -> PricesSoFar:
        """Sum up the prices there are; nobody sets one until the commit."""
        ...

    async def add_price(self, price: Price) -> None: ...
