"""Links that are mailed: good once, for a while, for one purpose, and kept only as a hash."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final, Literal, NewType, TypeAlias

from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.ids import AccountId

LinkToken = NewType("LinkToken", str)
LinkHash = NewType("LinkHash", bytes)

LinkPurpose: TypeAlias = Literal["verify-email", "reset-password"]
MailKind: TypeAlias = Literal[
    "verify-email", "reset-password", "already-registered", "password-changed", "invitation"
]

LINK_PREFIX: Final = "mlt_"
MAX_LINK_CHARS: Final = 100
_SECRET_BYTES: Final = 32


class InvalidLinkError(InvalidInputError):
    """Unknown, used before or too old; the answer never says which."""

    code = "invalid-link"
    title = "The link is not valid any more"

    def __init__(self) -> None:
        super().__init__("The link is unknown, was used before or is too old; ask for a new one.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a link was made for; its token is in nobody's hands but the recipient's."""

    purpose: LinkPurpose
    account_id: AccountId
    email: str


def new_link_token() -> LinkToken:
    """Make a token of 256 random bits."""
    return LinkToken(LINK_PREFIX + secrets.token_urlsafe(_SECRET_BYTES))


def hash_link(token: str) -> LinkHash:
    """Hash a token: it is random enough that no salt or stretching is needed."""
    return LinkHash(hashlib.sha256(token.encode()).digest())
