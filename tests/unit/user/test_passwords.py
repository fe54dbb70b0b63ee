import pytest

from maas.user.domain.account import EmailAddress, Username
from maas.user.domain.passwords import WeakPasswordError, check_password


def check(password: str) -> None:
    check_password(
        password,
        username=Username("ada"),
        email=EmailAddress("lovelace@example.com"),
        min_length=12,
    )


class TestCheckPassword:
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
        ],
    )
    def test_refuses_short_long_and_guessable_ones_without_repeating_them(
        self, password: str
    ) -> None:
        with pytest.raises(WeakPasswordError) as refusal:
            check(password)

        assert not password or password not in refusal.value.detail
