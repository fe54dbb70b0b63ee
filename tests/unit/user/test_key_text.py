import re

import pytest

from maas.user.domain.key_text import ALPHABET, checksum, prefix_of, read_key
from tests.factories.keys import seeded_key

FORM = re.compile(r"maas_live_[0-9A-Za-z]{8}_[0-9A-Za-z]{32}_[0-9A-Za-z]{6}")


def make(seed: int = 1, *, public_id: str | None = None) -> str:
    return seeded_key(seed, mark="live", public_id=public_id).text


class TestNewKey:
    def test_has_the_form_that_scanners_look_for(self) -> None:
        assert FORM.fullmatch(make())

    def test_reads_back_as_it_was_made(self) -> None:
        made = seeded_key(7)

        read = read_key(made.text)

        assert read is not None
        assert (read.public_id, read.secret_hash) == (made.public_id, made.secret_hash)

    def test_a_successor_keeps_the_id_and_changes_the_rest(self) -> None:
        first, second = make(1, public_id="abcdefgh"), make(2, public_id="abcdefgh")

        assert prefix_of(first) == prefix_of(second) == "maas_live_abcdefgh"
        assert first != second

    def test_does_not_print_its_secret(self) -> None:
        made = seeded_key(7)

        assert made.text not in repr(made)


class TestReading:
    @pytest.mark.parametrize("at", range(len("maas_live_"), 57))
    def test_a_slip_of_the_hand_is_found(self, at: int) -> None:
        key = make()
        other = ALPHABET[(ALPHABET.find(key[at]) + 1) % len(ALPHABET)]

        assert read_key(key) is not None
        assert read_key(key[:at] + other + key[at + 1 :]) is None

    def test_two_letters_changed_for_one_another_are_found(self) -> None:
        key = make()
        at = next(i for i in range(20, 50) if key[i] != key[i + 1])

        assert read_key(key[:at] + key[at + 1] + key[at] + key[at + 2 :]) is None

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "maas_",
            "maas_live_abcdefgh",
            make()[:-1],
            make() + "0",
            " " + make(),
            make().upper(),
            make().replace("live", "test"),
            "maas_live_abcdefgh_" + "0" * 100 + "_000000",
            "maas_live_abcdefgh_" + "é" * 32 + "_000000",
        ],
    )
    def test_what_is_no_key_is_none(self, text: str) -> None:
        assert read_key(text) is None

    def test_a_longer_secret_is_taken_too(self) -> None:
        body = f"maas_live_abcdefgh_{'x' * 40}"

        assert read_key(f"{body}_{checksum(body)}") is not None
