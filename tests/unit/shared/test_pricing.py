"""What a call costs: exact, and rounded once."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas.shared.domain.money import Money
from maas.shared.domain.pricing import (
    MAX_DECIMALS,
    InvalidPriceError,
    InvalidUsageError,
    Price,
    Prices,
)

prices = st.decimals(min_value=0, max_value=10_000, places=MAX_DECIMALS).map(Price)
counts = st.integers(min_value=0, max_value=10_000_000)


def priced(**meters: str) -> Prices:
    prices: dict[str, Any] = {name: Price(Decimal(text)) for name, text in meters.items()}
    return Prices(currency="USD", **prices)


class TestCost:
    def test_a_million_units_cost_the_price(self) -> None:
        prices = priced(input="2.5", output="10")

        assert prices.cost_of(input_tokens=1_000_000) == Money(2_500_000_000, "USD")
        assert prices.cost_of(output_tokens=1_000_000) == Money(10_000_000_000, "USD")

    def test_cached_and_reasoning_have_prices_of_their_own(self) -> None:
        prices = priced(input="2", cached="0.5", output="8", reasoning="4")

        cost = prices.cost_of(
            input_tokens=1_000, cached_tokens=400, output_tokens=100, reasoning_tokens=50
        )

        assert cost == Money(600 * 2_000 + 400 * 500 + 100 * 8_000 + 50 * 4_000, "USD")

    def test_without_one_they_cost_what_input_and_output_do(self) -> None:
        prices = priced(input="2", output="8")

        assert prices.cost_of(input_tokens=10, cached_tokens=4) == prices.cost_of(input_tokens=10)
        assert prices.cost_of(reasoning_tokens=3) == prices.cost_of(output_tokens=3)

    @pytest.mark.parametrize(
        ("price", "tokens", "nano"),
        [
            ("0.0005", 1, 1),  # half a nano-unit
            ("0.000499999999", 1, 0),
            ("0.000500000001", 1, 1),
            ("0.0005", 3, 2),
            ("0.001", 1, 1),
            ("0", 10**12, 0),
        ],
    )
    def test_half_a_nano_unit_goes_up(self, price: str, tokens: int, nano: int) -> None:
        assert priced(input=price, output="0").cost_of(input_tokens=tokens).nano == nano

    def test_a_request_costs_its_own_price_whatever_its_length(self) -> None:
        prices = replace(priced(input="2.5", output="10"), request=Decimal("0.01"))

        assert prices.cost_of(input_tokens=2, requests=1).nano == 10_005_000
        assert prices.cost_of(input_tokens=2).nano == 5_000
        with pytest.raises(InvalidUsageError):
            prices.cost_of(requests=-1)
        with pytest.raises(InvalidPriceError):
            replace(prices, request=Decimal(-1))

    def test_it_is_rounded_once_and_not_for_each_meter(self) -> None:
        prices = priced(input="0.0004", cached="0.0004", output="0.0004", reasoning="0.0004")

        cost = prices.cost_of(input_tokens=2, cached_tokens=1, output_tokens=1, reasoning_tokens=1)

        assert cost.nano == 2  # 1.6, where meter by meter each would be nothing

    @given(
        meters=st.lists(st.tuples(prices, counts), min_size=4, max_size=4),
    )
    def test_it_is_the_exact_sum_to_the_nearest_nano_unit(
        self, meters: list[tuple[Price, int]]
    ) -> None:
        (a, fresh), (b, cached), (c, output), (d, reasoning) = meters

        cost = Prices(currency="EUR", input=a, cached=b, output=c, reasoning=d).cost_of(
            input_tokens=fresh + cached,
            cached_tokens=cached,
            output_tokens=output,
            reasoning_tokens=reasoning,
        )

        exact = sum(
            (Fraction(price.per_million) * count * 1000 for price, count in meters), Fraction(0)
        )
        assert -Fraction(1, 2) < cost.nano - exact <= Fraction(1, 2)

    @given(price=prices, n=counts, more=counts)
    def test_more_never_costs_less(self, price: Price, n: int, more: int) -> None:
        prices = Prices(currency="EUR", input=price, output=price)

        assert prices.cost_of(input_tokens=n).nano <= prices.cost_of(input_tokens=n + more).nano

    @pytest.mark.parametrize(
        "counts",
        [
            {"input_tokens": -1},
            {"output_tokens": -1},
            {"reasoning_tokens": -1},
            {"cached_tokens": -1},
            {"input_tokens": 1, "cached_tokens": 2},
            {"output_tokens": 10**30},
        ],
    )
    def test_what_cannot_be_is_refused(self, counts: dict[str, int]) -> None:
        with pytest.raises(InvalidUsageError):
            priced(input="1", output="1").cost_of(**counts)


@pytest.mark.parametrize(
    "text", ["-0.01", "NaN", "sNaN", "Infinity", "0.0000000000001", "1E+13", "1E-20", "1E-999999"]
)
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(InvalidPriceError):
        Price(Decimal(text))


@pytest.mark.parametrize("text", ["0", "1E+12", "0.000000000001", "1.50", "2E-12", "1E+2"])
def test_prices_are_what_they_are_written_as(text: str) -> None:
    assert Fraction(Price(Decimal(text)).steps, 10**MAX_DECIMALS) == Fraction(text)
