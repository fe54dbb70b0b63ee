"""What a call costs: prices are decimals per million units, and are rounded once for each call."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.money import MAX_NANO, NANO, Money

UNITS_PER_PRICE: Final = 1_000_000
MAX_DECIMALS: Final = 12
MAX_PRICE: Final = Decimal(10**12)

_STEPS: Final = 10**MAX_DECIMALS


class InvalidPriceError(InvalidInputError):
    code = "invalid-price"
    title = "Not a price"

    def __init__(self) -> None:
        super().__init__(
            f"A price is a decimal from 0 to {MAX_PRICE:,} per million units, with at most "
            f"{MAX_DECIMALS} decimals."
        )


class InvalidUsageError(ValueError):
    """Units that no call can have used, or whose price does not fit 64 bits of nano-units."""


@dataclass(frozen=True, slots=True)
class Price:
    """An amount of some currency for a million units.

    Raises:
        InvalidPriceError: negative, no number, too large, or with too many decimals.
    """

    per_million: Decimal
    steps: int = field(init=False, repr=False, compare=False)
    """The price as a whole number of 10^-12, for exact arithmetic."""

    def __post_init__(self) -> None:
        if not (self.per_million.is_finite() and 0 <= self.per_million <= MAX_PRICE):
            raise InvalidPriceError
        exponent = self.per_million.as_tuple().exponent
        if not (isinstance(exponent, int) and exponent >= -MAX_DECIMALS):
            raise InvalidPriceError
        # Here, since each call asks for it several times.
        numerator, denominator = self.per_million.as_integer_ratio()
        object.__setattr__(self, "steps", numerator * _STEPS // denominator)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What the units of a model cost, by meter.

    Cached units are part of the input, and cost what input costs unless they have a price of their
    own; reasoning is beside the output, and likewise costs what output does. `request` is for each
    call, whatever its length, and not for a million of them.

    Raises:
        InvalidPriceError: `request` is none, as above.
    """

    currency: str
    input: Price
    output: Price
    cached: Price | None = None
    reasoning: Price | None = None
    request: Decimal | None = None

    def __post_init__(self) -> None:
        if self.request is not None:
            Price(self.request)

    def cost_of(
        self,
        *,
        input_tokens: int = 0,
        cached_tokens: int = 0,
        output_tokens: int = 0,
        reasoning_tokens: int = 0,
        requests: int = 0,
    ) -> Money:
        """Price all units of one call, exactly, and then round once, half up, to a nano-unit.

        Raises:
            InvalidUsageError: a negative count, more cached than put in, or past 64 bits.
        """
        counts = (cached_tokens, input_tokens - cached_tokens, output_tokens, reasoning_tokens)
        if min(*counts, requests) < 0:
            message = "units are not negative, and cached ones are part of the input"
            raise InvalidUsageError(message)
        steps = (
            (input_tokens - cached_tokens) * self.input.steps
            + cached_tokens * (self.cached or self.input).steps
            + output_tokens * self.output.steps
            + reasoning_tokens * (self.reasoning or self.output).steps
        )
        if self.request is not None and requests:
            steps += requests * Price(self.request).steps * UNITS_PER_PRICE
        nano = _divide_half_up(steps * NANO, UNITS_PER_PRICE * _STEPS)
        if nano > MAX_NANO:
            message = "the cost does not fit 64 bits of nano-units"
            raise InvalidUsageError(message)
        return Money(nano, self.currency)


def _divide_half_up(numerator: int, denominator: int) -> int:
    """Divide whole numbers that are not negative; a half goes up."""
    return (2 * numerator + denominator) // (2 * denominator)
