"""How an API key is written, and how it is read back before any server is asked."""

import hashlib
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

ENVIRONMENT_MARKS = {"development": "dev", "test": "test", "production": "live"}
KEY_PREFIX = "maas_"
PUBLIC_ID_CHARS = 8
SECRET_CHARS = 32
CHECKSUM_CHARS = 6
MAX_KEY_CHARS = 128
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_KEY = re.compile(
    rf"maas_[a-z]{{1,8}}_([0-9A-Za-z]{{{PUBLIC_ID_CHARS}}})_[0-9A-Za-z]{{{SECRET_CHARS},64}}"
    rf"_[0-9A-Za-z]{{{CHECKSUM_CHARS}}}",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentedKey:
    """What of a key is looked up and compared; the key itself is not kept."""

    public_id: str
    secret_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was just made; `text` is shown once."""

    text: str = field(repr=False)
    public_id: str
    secret_hash: bytes

    @property
    def prefix(self) -> str:
        """The part that people tell keys apart by; it is no secret."""
        return prefix_of(self.text)


def make_key(mark: str, choose: Callable[[str], str], *, public_id: str | None = None) -> NewKey:
    """Write a new key; `choose` picks one of the given letters, as hard to guess as can be.

    With a `public_id` it is the successor of the key of that id.
    """
    named = public_id or "".join(choose(ALPHABET) for _ in range(PUBLIC_ID_CHARS))
    secret = "".join(choose(ALPHABET) for _ in range(SECRET_CHARS))
    body = f"{KEY_PREFIX}{mark}_{named}_{secret}"
    text = f"{body}_{checksum(body)}"
    return NewKey(text=text, public_id=named, secret_hash=hash_key(text))


def read_key(text: str) -> PresentedKey | None:
    """Tell id and hash of a key as somebody presents it; `None` if it is mistyped or cut short."""
    if len(text) > MAX_KEY_CHARS:
        return None
    found = _KEY.fullmatch(text)
    if found is None:
        return None
    body, _, checked = text.rpartition("_")
    if checksum(body) != checked:
        return None
    return PresentedKey(public_id=found[1], secret_hash=hash_key(text))


def prefix_of(text: str) -> str:
    return "_".join(text.split("_")[:3])


def hash_key(text: str) -> bytes:
    """Hash a key once: its 190 bits of chance need no slow hash."""
    return hashlib.sha256(text.encode()).digest()


def checksum(body: str) -> str:
    """Spell the CRC-32 in six letters, so that a slip of the hand is found without a server."""
    number = zlib.crc32(body.encode())
    letters = []
    for _ in range(CHECKSUM_CHARS):
        number, rest = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[rest])
    return "".join(reversed(letters))
