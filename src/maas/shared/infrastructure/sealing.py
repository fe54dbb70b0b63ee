"""Secrets at rest, each sealed under a key of its own, which is wrapped under one of the ring's.

A sealed value is bound to its place: moved to another row, column or tenant it does not open.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm

from maas.shared.domain.errors import ConflictError
from maas.shared.infrastructure.sealing_ciphers import (
    CIPHERS,
    CIPHERS_BY_NUMBER,
    NONCE_BYTES,
    Algorithm,
    SealingCipher,
)
from maas.shared.infrastructure.sealing_ring import KEY_ID_BYTES, KeySource, RingKey

VERSION: Final = 1

_HEADER_BYTES: Final = 2 + KEY_ID_BYTES


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


@dataclass(frozen=True, slots=True, repr=False)
class _Opened:
    """A value whose data key was unwrapped, and which is itself still sealed."""

    cipher: SealingCipher
    data_key: bytes
    rest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedApart:
    """Something large, sealed under a key that lies beside it, which is itself sealed."""

    key: bytes
    content: bytes


class Sealer:
    """Seals under the current key of its ring and opens with any of them.

    The value: version and cipher (one byte each), the id of the ring's key, the wrapped data key
    after its nonce, the nonce of the value, the value.
    """

    def __init__(self, keys: KeySource, *, algorithm: Algorithm = "aes-256-gcm") -> None:
        self._keys = keys
        self._cipher = CIPHERS[algorithm]

    def seal(self, plain: bytes, place: Place) -> bytes:
        cipher, bound = self._cipher, place.to_bytes()
        data_key, nonce = os.urandom(cipher.key_bytes), os.urandom(NONCE_BYTES)
        sealed = cipher.encrypt(data_key, nonce, plain, bound)
        return self._wrap(cipher, data_key, bound) + nonce + sealed

    def open(self, sealed: bytes, place: Place) -> bytes:
        """Read a value back.

        Raises:
            SecretUnreadableError: it was sealed elsewhere, under another key, or changed since.
        """
        bound = place.to_bytes()
        opened = self._unwrap(sealed, bound)
        return _decrypt(opened.cipher, opened.data_key, opened.rest, bound)

    def open_at(self, sealed: bytes, places: Sequence[Place]) -> bytes:
        """Read a value back that was sealed at any of these places.

        Raises:
            SecretUnreadableError: it was sealed at none of them, or as `open` does.
        """
        for place in places:
            with suppress(SecretUnreadableError):
                return self.open(sealed, place)
        raise SecretUnreadableError

    def seal_apart(self, plain: bytes, place: Place, *, content: str) -> SealedApart:
        """Seal something large for two columns, of which `place` names the key's.

        Whoever hands over to another key of the ring, or looks for what does not open, reads and
        writes the small one alone.
        """
        cipher = self._cipher
        key, nonce = os.urandom(cipher.key_bytes), os.urandom(NONCE_BYTES)
        bound = replace(place, column=content).to_bytes()
        sealed = nonce + cipher.encrypt(key, nonce, plain, bound)
        return SealedApart(
            key=self.seal(key, place), content=bytes((VERSION, cipher.number)) + sealed
        )

    def open_apart(self, sealed: SealedApart, place: Place, *, content: str) -> bytes:
        """Read back what `seal_apart` sealed.

        Raises:
            SecretUnreadableError: as `open` does.
        """
        key = self.open(sealed.key, place)
        version, number = sealed.content[:1], sealed.content[1:2]
        cipher = CIPHERS_BY_NUMBER.get(int.from_bytes(number, "big"))
        if version != bytes((VERSION,)) or cipher is None:
            raise SecretUnreadableError
        return _decrypt(cipher, key, sealed.content[2:], replace(place, column=content).to_bytes())

    def older_keys(self) -> Sequence[bytes]:
        """List the ids of the keys that came before the current one."""
        return [key.id for key in self._keys.ring().older]

    def rewrap(self, sealed: bytes, place: Place) -> bytes:
        """Seal a value's key under the current key; the value itself stays as it is.

        Sealed with another cipher than is set now, it is sealed anew altogether.

        Raises:
            SecretUnreadableError: as `open` does.
        """
        bound = place.to_bytes()
        opened = self._unwrap(sealed, bound)
        if opened.cipher is not self._cipher:
            plain = _decrypt(opened.cipher, opened.data_key, opened.rest, bound)
            return self.seal(plain, place)
        return self._wrap(opened.cipher, opened.data_key, bound) + opened.rest

    def _wrap(self, cipher: SealingCipher, data_key: bytes, bound: bytes) -> bytes:
        key = self._keys.ring().current
        header = bytes((VERSION, cipher.number)) + key.id
        nonce = os.urandom(NONCE_BYTES)
        wrapping = cipher.wrapping_key(key.secret)
        return header + nonce + cipher.encrypt(wrapping, nonce, data_key, header + bound)

    def _unwrap(self, sealed: bytes, bound: bytes) -> _Opened:
        header, rest = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
        if len(header) < _HEADER_BYTES or header[0] != VERSION:
            raise SecretUnreadableError
        cipher, key = CIPHERS_BY_NUMBER.get(header[1]), self._find(header[2:])
        if cipher is None or key is None:
            raise SecretUnreadableError
        wrapped, rest = rest[: cipher.wrapped_bytes], rest[cipher.wrapped_bytes :]
        try:
            wrapping = cipher.wrapping_key(key.secret)
        except UnsupportedAlgorithm:
            raise SecretUnreadableError from None
        data_key = _decrypt(cipher, wrapping, wrapped, header + bound)
        return _Opened(cipher, data_key, rest)

    def _find(self, key_id: bytes) -> RingKey | None:
        found = self._keys.ring().find(key_id)
        if found is None:
            # Sealed by a process that knows a newer ring than this one.
            found = self._keys.read_again().find(key_id)
        return found


def key_id_of(sealed: bytes) -> bytes:
    """Tell under which key of the ring a value is sealed."""
    return sealed[2:_HEADER_BYTES]


def _decrypt(cipher: SealingCipher, key: bytes, sealed: bytes, bound: bytes) -> bytes:
    nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return cipher.decrypt(key, nonce, ciphertext, bound)
    except (InvalidTag, ValueError, UnsupportedAlgorithm):
        raise SecretUnreadableError from None
