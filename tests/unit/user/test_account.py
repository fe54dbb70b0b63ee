import pytest

from maas.user.domain.account import (
    DisplayName,
    EmailAddress,
    InvalidDisplayNameError,
    InvalidEmailError,
    InvalidUsernameError,
    Username,
)
from tests.factories.accounts import NOON, make_account


class TestUsername:
    @pytest.mark.parametrize("value", ["a", "ada", "Ada.L-1_2", "x" * 64])
    def test_takes_ascii_names_of_up_to_64(self, value: str) -> None:
        assert str(Username(value)) == value

    @pytest.mark.parametrize(
        "value", ["", ".ada", "ada-", "a@b", "a b", "x" * 65, "ad\u0430", "ada\n", "ada\x00"]
    )
    def test_refuses_what_could_be_mistaken_for_something_else(self, value: str) -> None:
        with pytest.raises(InvalidUsernameError):
            Username(value)

    def test_is_unique_without_regard_to_case(self) -> None:
        assert Username("Ada").key == Username("aDA").key


class TestEmailAddress:
    @pytest.mark.parametrize("value", ["a@b.de", "ada+tag@mail.example.com", "é@exämple.fr"])
    def test_takes_addresses(self, value: str) -> None:
        assert str(EmailAddress(value)) == value

    @pytest.mark.parametrize(
        "value", ["", "ada", "@b.de", "a@b", "a@@b.de", "a b@c.de", "a@b.de\n", "a" * 250 + "@b.de"]
    )
    def test_refuses_what_is_none(self, value: str) -> None:
        with pytest.raises(InvalidEmailError):
            EmailAddress(value)


class TestDisplayName:
    def test_takes_any_script_and_trims(self) -> None:
        assert str(DisplayName("  王小明 ")) == "王小明"

    @pytest.mark.parametrize("value", ["", "   ", "a\x00b", "a\nb", "\ud800", "x" * 201])
    def test_refuses_empty_control_and_endless_names(self, value: str) -> None:
        with pytest.raises(InvalidDisplayNameError):
            DisplayName(value)

    @pytest.mark.parametrize("char", ["\u202e", "\u2066", "\u200b", "\ufeff", "\u2028", "\u00ad"])
    def test_refuses_what_turns_or_hides_text(self, char: str) -> None:
        with pytest.raises(InvalidDisplayNameError):
            DisplayName(f"Ada{char}nimda")


class TestAccount:
    def test_a_chosen_password_ends_the_duty_to_change_it(self) -> None:
        account = make_account(password_change_required=True)

        account.set_password("new hash", at=NOON)

        assert account.password_hash == "new hash"
        assert not account.password_change_required

    def test_rehashing_keeps_the_duty_to_change_it(self) -> None:
        account = make_account(password_change_required=True)

        account.rehash_password("same password, new parameters")

        assert account.password_change_required
