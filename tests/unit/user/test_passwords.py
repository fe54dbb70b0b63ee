import pytest

from maas.user.domain.account import EmailAddress, Username
from maas.user.domain.common_passwords import common_passwords
from maas.user.domain.passwords import WeakPasswordError, check_password


def check(password: str) -> None:
    check_password(
        password,
        username=Username("ada"),
        email=EmailAddress("lovelace@example.com"),
        min_length=12,
    )


class TestCheckPassword:
    def test_knows_ten_thousand_common_ones_at_least(self) -> None:
        assert len(common_passwords()) >= 10_000
        assert {"qwertyuiop", "letmein"} <= common_passwords()

    @pytest.mark.parametrize("password", ["horse-98127364509", "Liverpool street 1894 fog"])
    def test_a_common_word_within_a_rare_phrase_is_fine(self, password: str) -> None:
        check(password)

    @pytest.mark.parametrize(
        "password", ["correct horse", "zwölf zeichen!", "密码密码很长很长很安全的一句话"]
    )
    def test_takes_long_phrases_of_any_script(self, password: str) -> None:
        check(password)

    @pytest.mark.parametrize(
        "password",
        [
            "",
            "short",
            "x" * 257,
            "aaaaaaaaaaaaaaaa",
            "passwordpassword",
            "lovelacelovelace",
            "maasmaasmaas",
            "1qaz2wsx3edc",
            "Sunshine2024!",
            "TrustNo1trustno1",
            "!!Liverpool77",
        ],
    )
    def test_refuses_short_long_and_guessable_ones_without_repeating_them(
        self, password: str
    ) -> None:
        with pytest.raises(WeakPasswordError) as refusal:
            check(password)

        assert not password or password not in refusal.value.detail
