"""The ring of keys that secrets are sealed under: what a key is, and which one seals now."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 8


class UnfitRingError(Exception):
    """The keys that were given cannot be used; says why, and shows none of them."""

    code = "unfit-sealing-keys"


@dataclass(frozen=True, slots=True, repr=False)
class RingKey:
    """A key, and the id that stands in what it seals: a hash, that tells nothing of the key."""

    id: bytes
    secret: bytes

    @classmethod
    def of(cls, secret: bytes) -> Self:
        if len(secret) != KEY_BYTES:
            message = f"a sealing key has {KEY_BYTES} bytes"
            raise UnfitRingError(message)
        return cls(hashlib.sha256(b"maas sealing key id" + secret).digest()[:KEY_ID_BYTES], secret)

    @classmethod
    def derived(cls, secret_key: str) -> Self:
        """Derive a key from the server's secret, for where no other is given."""
        derivation = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"maas sealing v1")
        return cls.of(derivation.derive(secret_key.encode()))


@dataclass(frozen=True, slots=True, repr=False)
class KeyRing:
    """The keys, the newest first; one of them seals, and all of them open."""

    keys: Sequence[RingKey]
    current: RingKey
    leaving: Sequence[RingKey] = ()
    """Were taken out a moment ago, and open what was read before that."""

    @property
    def older(self) -> Sequence[RingKey]:
        """The keys that came before the current one, which hand over to it."""
        return self.keys[self.keys.index(self.current) + 1 :]

    def find(self, key_id: bytes) -> RingKey | None:
        return next((key for key in (*self.keys, *self.leaving) if key.id == key_id), None)


class KeySource(Protocol):
    """Where the ring comes from, and how a process hears that it was changed."""

    def ring(self) -> KeyRing:
        """Give the ring as it is now; cheap where nothing was changed."""
        ...

    def read_again(self) -> KeyRing:
        """Give the ring, read anew even where it looks unchanged."""
        ...


class FixedKeys:
    """Keys that stay as they are for as long as the process runs, the newest first."""

    def __init__(self, keys: Sequence[RingKey]) -> None:
        if not keys:
            message = "a ring needs a key"
            raise UnfitRingError(message)
        self._ring = KeyRing(tuple(dict.fromkeys(keys)), keys[0])

    def ring(self) -> KeyRing:
        return self._ring

    def read_again(self) -> KeyRing:
        return self._ring
