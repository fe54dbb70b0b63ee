"""Secrets at rest, each sealed under a key of its own, which is sealed under the server's.

A sealed value is bound to its place: moved to another row, column or tenant it does not open.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from maas.shared.domain.errors import ConflictError

VERSION: Final = 1
AES_256_GCM: Final = 1
KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 8
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16

_HEADER_BYTES: Final = 2 + KEY_ID_BYTES
_WRAPPED_BYTES: Final = NONCE_BYTES + KEY_BYTES + TAG_BYTES


class SecretUnreadableError(ConflictError):
    """A kept secret does not open: the server's key was changed, or the row was."""

    code = "secret-unreadable"
    title = "A kept secret cannot be read"

    def __init__(self) -> None:
        super().__init__("The server's key has changed since it was kept: set a new secret.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a sealed value lies."""

    table: str
    row: object
    column: str
    tenant: object

    def to_bytes(self) -> bytes:
        parts = (self.table, str(self.row), self.column, str(self.tenant))
        return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)


class Sealer:
    """Seals with the first key and opens with any of them, so that keys can be changed.

    The value: version and algorithm (one byte each), the id of the server's key, the wrapped data
    key with its nonce, the nonce of the value, the value.
    """

    def __init__(self, secret_keys: Sequence[str]) -> None:
        ring = [_derive(secret) for secret in secret_keys]
        if not ring:
            message = "a sealer needs a key"
            raise ValueError(message)
        self._current = _key_id(ring[0])
        self._ring = {_key_id(key): key for key in reversed(ring)}

    def seal(self, plain: bytes, place: Place) -> bytes:
        data_key = os.urandom(KEY_BYTES)
        nonce = os.urandom(NONCE_BYTES)
        bound = place.to_bytes()
        return self._wrap(data_key, bound) + nonce + AESGCM(data_key).encrypt(nonce, plain, bound)

    def open(self, sealed: bytes, place: Place) -> bytes:
        """Read a value back.

        Raises:
            SecretUnreadableError: it was sealed elsewhere, under another key, or changed since.
        """
        data_key, rest = self._unwrap(sealed, place.to_bytes())
        return _decrypt(data_key, rest, place.to_bytes())

    def is_current(self, sealed: bytes) -> bool:
        """Tell whether the value is sealed under the first key."""
        return sealed[2:_HEADER_BYTES] == self._current

    def rewrap(self, sealed: bytes, place: Place) -> bytes:
        """Seal a value's key under the first key; the value itself stays as it is.

        Raises:
            SecretUnreadableError: as `open` does.
        """
        data_key, rest = self._unwrap(sealed, place.to_bytes())
        return self._wrap(data_key, place.to_bytes()) + rest

    def _wrap(self, data_key: bytes, bound: bytes) -> bytes:
        header = bytes((VERSION, AES_256_GCM)) + self._current
        nonce = os.urandom(NONCE_BYTES)
        wrapped = AESGCM(self._ring[self._current]).encrypt(nonce, data_key, header + bound)
        return header + nonce + wrapped

    def _unwrap(self, sealed: bytes, bound: bytes) -> tuple[bytes, bytes]:
        header = sealed[:_HEADER_BYTES]
        key = self._ring.get(header[2:])
        if key is None or header[:2] != bytes((VERSION, AES_256_GCM)):
            raise SecretUnreadableError
        rest = sealed[_HEADER_BYTES:]
        return _decrypt(key, rest[:_WRAPPED_BYTES], header + bound), rest[_WRAPPED_BYTES:]


def _decrypt(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, bound)
    except (InvalidTag, ValueError):
        raise SecretUnreadableError from None


def _derive(secret: str) -> bytes:
    derivation = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"maas sealing v1")
    return derivation.derive(secret.encode())


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"maas sealing key id" + key).digest()[:KEY_ID_BYTES]
