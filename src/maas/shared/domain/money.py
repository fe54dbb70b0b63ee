"""Money in nano-units: integers, so that sums are exact and budgets add up."""

from dataclasses import dataclass

NANO = 1_000_000_000
MAX_NANO = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of one currency; `nano` is in 10^-9 of its unit and fits PostgreSQL's bigint.

    Raises:
        ValueError: past the range of a bigint, or the currency is not three capital letters.
    """

    nano: int
    currency: str

    def __post_init__(self) -> None:
        if not -MAX_NANO <= self.nano <= MAX_NANO:
            message = "the amount does not fit 64 bits of nano-units"
            raise ValueError(message)
        if len(self.currency) != 3 or not (self.currency.isascii() and self.currency.isupper()):  # noqa: PLR2004  ISO 4217
            message = "a currency is three capital letters, as in ISO 4217"
            raise ValueError(message)

    def __add__(self, other: "Money") -> "Money":
        return Money(self.nano + self._same(other).nano, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.nano - self._same(other).nano, self.currency)

    def _same(self, other: "Money") -> "Money":
        if other.currency != self.currency:
            message = f"cannot mix {self.currency} and {other.currency}"
            raise ValueError(message)
        return other
