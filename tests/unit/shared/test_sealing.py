"""Secrets at rest: what opens them, and what does not."""

from dataclasses import replace
from typing import Any

import pytest

from maas.shared.infrastructure.sealing import Place, Sealer, SecretUnreadableError

OLD, NEW = "the-old-secret-key-0123456789-abcdefgh", "the-new-secret-key-0123456789-abcdefgh"
PLACE = Place(table="webhooks", row="1", column="secret", tenant="t")
PLAIN = b"canary-a-secret-of-32-bytes-here"


def test_a_sealed_secret_opens_at_its_place() -> None:
    sealer = Sealer([NEW])

    sealed = sealer.seal(PLAIN, PLACE)

    assert sealer.open(sealed, PLACE) == PLAIN
    assert PLAIN not in sealed


def test_no_two_seals_are_alike() -> None:
    sealer = Sealer([NEW])

    assert sealer.seal(PLAIN, PLACE) != sealer.seal(PLAIN, PLACE)


@pytest.mark.parametrize(
    "change",
    [
        {"table": "providers"},
        {"row": "2"},
        {"column": "previous"},
        {"tenant": "u"},
        {"table": "webhooks1", "row": ""},
    ],
)
def test_a_sealed_secret_opens_nowhere_else(change: dict[str, Any]) -> None:
    sealer = Sealer([NEW])
    sealed = sealer.seal(PLAIN, PLACE)

    with pytest.raises(SecretUnreadableError):
        sealer.open(sealed, replace(PLACE, **change))


def test_a_changed_byte_is_noticed_wherever_it_is() -> None:
    sealer = Sealer([NEW])
    sealed = sealer.seal(PLAIN, PLACE)

    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(SecretUnreadableError):
            sealer.open(bytes(changed), PLACE)


@pytest.mark.parametrize("length", [0, 1, 9, 10, 40, 69, 70, 81])
def test_a_cut_one_does_not_open(length: int) -> None:
    sealer = Sealer([NEW])

    with pytest.raises(SecretUnreadableError):
        sealer.open(sealer.seal(PLAIN, PLACE)[:length], PLACE)


class TestKeys:
    def test_the_key_before_still_opens(self) -> None:
        sealed = Sealer([OLD]).seal(PLAIN, PLACE)

        assert Sealer([NEW, OLD]).open(sealed, PLACE) == PLAIN

    def test_a_forgotten_key_opens_nothing(self) -> None:
        sealed = Sealer([OLD]).seal(PLAIN, PLACE)

        with pytest.raises(SecretUnreadableError):
            Sealer([NEW]).open(sealed, PLACE)

    def test_rewrapped_it_opens_with_the_new_key_alone(self) -> None:
        both, sealed = Sealer([NEW, OLD]), Sealer([OLD]).seal(PLAIN, PLACE)

        rewrapped = both.rewrap(sealed, PLACE)

        assert (both.is_current(sealed), both.is_current(rewrapped)) == (False, True)
        assert Sealer([NEW]).open(rewrapped, PLACE) == PLAIN

    def test_there_has_to_be_one(self) -> None:
        with pytest.raises(ValueError, match="needs a key"):
            Sealer([])
