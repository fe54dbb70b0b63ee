"""Names and prices of suppliers' models."""

from decimal import Decimal

import pytest

from maas.model.domain.provider_model import (
    Currency,
    InvalidCurrencyError,
    InvalidProviderModelNameError,
    InvalidUnitPriceError,
    ProviderModelName,
    UnitPrice,
)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("2.50", "2.5"),
        ("0", "0"),
        ("0.0", "0"),
        ("007", "7"),
        ("0.000000000001", "0.000000000001"),
        ("999999999.999999999999", "999999999.999999999999"),
    ],
)
def test_a_price_is_kept_to_the_last_digit(text: str, kept: str) -> None:
    price = UnitPrice(text)

    assert str(price) == kept
    assert price.amount == Decimal(text)
    assert UnitPrice.of(Decimal(text)) == price


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1e3", "1.", ".5", "1,5", " 1", "NaN", "1234567890", "0.0000000000001", "٣"],
)
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(InvalidUnitPriceError):
        UnitPrice(text)


@pytest.mark.parametrize("name", ["gpt-4o", "deepseek-ai/DeepSeek-V3", "qwen3:7b", "a" * 200])
def test_names_are_the_suppliers(name: str) -> None:
    assert str(ProviderModelName(name)) == name


@pytest.mark.parametrize("name", ["", "a b", "a\n", "modèle", "a" * 201])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidProviderModelNameError):
        ProviderModelName(name)


@pytest.mark.parametrize("code", ["usd", "US", "USDT", "", "€€€"])
def test_what_is_no_currency_is_refused(code: str) -> None:
    with pytest.raises(InvalidCurrencyError):
        Currency(code)
