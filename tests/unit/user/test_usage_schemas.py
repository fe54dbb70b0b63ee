"""Usage on the wire: no sum is told that JSON would have rounded."""

from maas.user.application.usage import Cost, UsageSums
from maas.user.interface.usage_schemas import UsageSumsRead

EXACT, PAST = 2**53, 2**53 + 1


def test_sums_past_what_json_keeps_are_text() -> None:
    sums = UsageSums(
        requests=EXACT,
        estimated=0,
        input_tokens=PAST,
        cached_tokens=EXACT,
        output_tokens=1,
        reasoning_tokens=0,
        storage_bytes=-PAST,
        costs=[Cost(currency="USD", cost_nanos=PAST)],
    )

    assert UsageSumsRead.of(sums).model_dump(mode="json") == {
        "requests": EXACT,
        "estimated_requests": 0,
        "input_tokens": str(PAST),
        "cached_tokens": EXACT,
        "output_tokens": 1,
        "reasoning_tokens": 0,
        "tokens": str(PAST + 1),
        "storage_bytes": str(-PAST),
        "costs": [{"currency": "USD", "cost_nanos": str(PAST)}],
    }
