import pytest

from maas.client.errors import ClientError
from maas.client.references import Reading, read_reference


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("bot", [Reading(model="bot")]),
        ("acme/bot", [Reading(model="acme/bot")]),
        (
            "acme/bot:7b",
            [Reading(model="acme/bot:7b"), Reading(model="acme/bot", version="7b")],
        ),
        ("acme/bot:7b:1.0.0", [Reading(model="acme/bot:7b", version="1.0.0")]),
        ("acme/bot:7b@production", [Reading(model="acme/bot:7b", alias="production")]),
    ],
)
def test_a_name_may_end_in_a_tag(text: str, readings: list[Reading]) -> None:
    assert read_reference(text) == readings


@pytest.mark.parametrize("text", ["", "@", "bot@", "@production", ":", ":1.0.0", "bot:"])
def test_half_a_reference_is_none(text: str) -> None:
    with pytest.raises(ClientError):
        read_reference(text)
