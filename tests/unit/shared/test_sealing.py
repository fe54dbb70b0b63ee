"""Secrets at rest: what opens them, and what does not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from maas.shared.infrastructure.sealing import (
    Place,
    Sealer,
    SecretUnreadableError,
    key_id_of,
)
from maas.shared.infrastructure.sealing_ciphers import CIPHERS, Algorithm
from maas.shared.infrastructure.sealing_ring import FixedKeys, RingKey, UnfitRingError

OLD, NEW = "the-old-secret-key-0123456789-abcdefgh", "the-new-secret-key-0123456789-abcdefgh"
PLACE = Place(table="webhooks", row="1", column="secret", tenant="t")
PLAIN = b"canary-a-secret-of-32-bytes-here"

# Sealed by the code of the first release that sealed, under OLD at PLACE.
KEPT_SINCE_VERSION_1 = bytes.fromhex(
    "0101c694145c0fcfeb0c0f6ece1fe69ae1327fe95dc08e826ca06cc16cbd44792583cfe9d17fa5be"
    "6dccdbdcf017ac311c79cf854628a4f039913dd7d8de97521e48cec675a3b7fa59dbd20595c0553c"
    "8efc8c36908213895e858552a1c56584b7bef4e32a2bd64c0807538a90c2907f7912e109cd9fc652"
    "e20c7a0e4c0deeeb06b3"
)

ALGORITHMS: Sequence[Algorithm] = ("aes-256-gcm", "sm4-gcm")


def sealer_of(*secrets: str, algorithm: Algorithm = "aes-256-gcm") -> Sealer:
    return Sealer(FixedKeys([RingKey.derived(each) for each in secrets]), algorithm=algorithm)


@pytest.fixture(params=ALGORITHMS)
def sealer(request: pytest.FixtureRequest) -> Sealer:
    return sealer_of(NEW, algorithm=request.param)


def test_a_sealed_secret_opens_at_its_place(sealer: Sealer) -> None:
    sealed = sealer.seal(PLAIN, PLACE)

    assert sealer.open(sealed, PLACE) == PLAIN
    assert PLAIN not in sealed


def test_no_two_seals_are_alike(sealer: Sealer) -> None:
    assert sealer.seal(PLAIN, PLACE) != sealer.seal(PLAIN, PLACE)


def test_what_was_sealed_before_there_were_rings_opens() -> None:
    assert sealer_of(NEW, OLD).open(KEPT_SINCE_VERSION_1, PLACE) == PLAIN


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
def test_a_sealed_secret_opens_nowhere_else(sealer: Sealer, change: dict[str, Any]) -> None:
    sealed = sealer.seal(PLAIN, PLACE)

    with pytest.raises(SecretUnreadableError):
        sealer.open(sealed, replace(PLACE, **change))


def test_a_value_does_not_open_with_the_key_of_another(sealer: Sealer) -> None:
    other = replace(PLACE, row="2")
    head = len(sealer.seal(b"", PLACE)) - 28
    ours, theirs = sealer.seal(PLAIN, PLACE), sealer.seal(PLAIN, other)

    with pytest.raises(SecretUnreadableError):
        sealer.open(ours[:head] + theirs[head:], PLACE)


def test_a_changed_byte_is_noticed_wherever_it_is(sealer: Sealer) -> None:
    sealed = sealer.seal(PLAIN, PLACE)

    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(SecretUnreadableError):
            sealer.open(bytes(changed), PLACE)


def test_a_cut_one_does_not_open(sealer: Sealer) -> None:
    sealed = sealer.seal(PLAIN, PLACE)

    for length in range(len(sealed)):
        with pytest.raises(SecretUnreadableError):
            sealer.open(sealed[:length], PLACE)


def test_a_cipher_cannot_be_passed_off_as_the_other(sealer: Sealer) -> None:
    sealed = bytearray(sealer.seal(PLAIN, PLACE))
    sealed[1] = 3 - sealed[1]

    with pytest.raises(SecretUnreadableError):
        sealer.open(bytes(sealed), PLACE)


class TestKeys:
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_the_key_before_still_opens(self, algorithm: Algorithm) -> None:
        sealed = sealer_of(OLD, algorithm=algorithm).seal(PLAIN, PLACE)

        assert sealer_of(NEW, OLD).open(sealed, PLACE) == PLAIN

    def test_a_forgotten_key_opens_nothing(self) -> None:
        sealed = sealer_of(OLD).seal(PLAIN, PLACE)

        with pytest.raises(SecretUnreadableError):
            sealer_of(NEW).open(sealed, PLACE)

    @pytest.mark.parametrize("before", ALGORITHMS)
    @pytest.mark.parametrize("after", ALGORITHMS)
    def test_rewrapped_it_opens_with_the_new_key_alone(
        self, before: Algorithm, after: Algorithm
    ) -> None:
        sealed = sealer_of(OLD, algorithm=before).seal(PLAIN, PLACE)

        rewrapped = sealer_of(NEW, OLD, algorithm=after).rewrap(sealed, PLACE)

        assert key_id_of(rewrapped) == RingKey.derived(NEW).id != key_id_of(sealed)
        assert rewrapped[1] == CIPHERS[after].number
        assert sealer_of(NEW).open(rewrapped, PLACE) == PLAIN

    def test_rewrapping_leaves_the_value_as_it_is(self) -> None:
        sealed = sealer_of(OLD).seal(PLAIN, PLACE)

        rewrapped = sealer_of(NEW, OLD).rewrap(sealed, PLACE)

        assert rewrapped[-len(PLAIN) - 28 :] == sealed[-len(PLAIN) - 28 :]

    def test_what_lies_elsewhere_is_not_rewrapped(self) -> None:
        sealed = sealer_of(OLD).seal(PLAIN, PLACE)

        with pytest.raises(SecretUnreadableError):
            sealer_of(NEW, OLD).rewrap(sealed, replace(PLACE, row="2"))

    def test_only_the_keys_before_the_current_one_hand_over(self) -> None:
        assert sealer_of(NEW, OLD).older_keys() == [RingKey.derived(OLD).id]
        assert sealer_of(NEW).older_keys() == []

    def test_there_has_to_be_one(self) -> None:
        with pytest.raises(UnfitRingError, match="needs a key"):
            FixedKeys([])

    def test_a_short_key_is_refused(self) -> None:
        with pytest.raises(UnfitRingError, match="32 bytes"):
            RingKey.of(b"short")

    def test_no_key_is_ever_spelled_out(self) -> None:
        key = RingKey.derived(NEW)

        assert repr(key.secret)[2:10] not in f"{key!r} {FixedKeys([key]).ring()!r}"


class TestApart:
    """Something large, whose key lies in a column of its own."""

    def test_it_opens_again(self, sealer: Sealer) -> None:
        sealed = sealer.seal_apart(PLAIN * 1000, PLACE, content="content")

        assert sealer.open_apart(sealed, PLACE, content="content") == PLAIN * 1000
        assert PLAIN not in sealed.key + sealed.content

    def test_its_key_is_handed_over_without_it(self) -> None:
        sealed = sealer_of(OLD).seal_apart(PLAIN, PLACE, content="content")

        rewrapped = replace(sealed, key=sealer_of(NEW, OLD).rewrap(sealed.key, PLACE))

        assert sealer_of(NEW).open_apart(rewrapped, PLACE, content="content") == PLAIN

    @pytest.mark.parametrize("change", [{"row": "2"}, {"tenant": "u"}, {"column": "previous"}])
    def test_it_opens_nowhere_else(self, sealer: Sealer, change: dict[str, Any]) -> None:
        sealed = sealer.seal_apart(PLAIN, PLACE, content="content")

        with pytest.raises(SecretUnreadableError):
            sealer.open_apart(sealed, replace(PLACE, **change), content="content")

    def test_the_content_of_another_does_not_open(self, sealer: Sealer) -> None:
        ours = sealer.seal_apart(PLAIN, PLACE, content="content")
        theirs = sealer.seal_apart(PLAIN, replace(PLACE, row="2"), content="content")

        for mixed in (
            replace(ours, content=theirs.content),
            replace(ours, content=b""),
            replace(ours, content=b"\x02" + ours.content[1:]),
            replace(ours, content=ours.content[:1] + b"\x09" + ours.content[2:]),
        ):
            with pytest.raises(SecretUnreadableError):
                sealer.open_apart(mixed, PLACE, content="content")
