"""What may be a password: long enough, and not guessable from who one is. No composition rules."""

from maas.shared.domain.errors import InvalidInputError
from maas.user.domain.account import EmailAddress, Username
from maas.user.domain.common_passwords import is_common

MAX_PASSWORD_CHARS = 256
PRODUCT_WORDS = ("maas", "password", "passwort", "letmein", "qwerty", "123456")


class WeakPasswordError(InvalidInputError):
    code = "weak-password"
    title = "Choose another password"


def check_password(
    password: str, *, username: Username, email: EmailAddress, min_length: int
) -> None:
    """Refuse a password that is too short, too long, common or easily guessed.

    Raises:
        WeakPasswordError: saying which of these, never repeating the password.
    """
    if not min_length <= len(password) <= MAX_PASSWORD_CHARS:
        message = f"A password has {min_length} to {MAX_PASSWORD_CHARS} characters."
        raise WeakPasswordError(message)
    if is_common(password):
        message = "This password is one of those that are tried first: choose a rarer one."
        raise WeakPasswordError(message)
    lowered = password.lower()
    rest = lowered
    for word in (username.key, email.key, email.key.partition("@")[0], *PRODUCT_WORDS):
        if len(word) >= 3:  # noqa: PLR2004  shorter ones are in every password
            rest = rest.replace(word, "")
    if len(set(rest)) < 4:  # noqa: PLR2004  what is left is one key held down
        message = "This password is easily guessed: leave out your name and common words."
        raise WeakPasswordError(message)
