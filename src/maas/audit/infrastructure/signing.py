"""Ed25519: the key that signs checkpoints, and the public keys that others check them with."""

import base64
import binascii
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from maas.audit.domain.checkpoint import key_id_of
from maas.shared.infrastructure.settings import AuditSettings, InvalidSettingsError

KEY_BYTES: Final = 32
_PURPOSE: Final = b"maas audit checkpoints v1"
_PEM: Final = "-----BEGIN"

PublicKeys: TypeAlias = dict[str, bytes]
"""Raw public keys by their key id."""


class UnreadableKeyError(ValueError):
    """This is no Ed25519 key, in PEM or as 32 bytes in base64."""


class Ed25519Signer:
    """Signs with one private key, which it shows to nobody."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()
        self.key_id = key_id_of(self.public_key)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def public_pem(self) -> str:
        spelled = self._key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return spelled.decode()


def is_signed_by(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether the holder of this key signed this message."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def load_signer(settings: AuditSettings, *, secret_key: str) -> Ed25519Signer:
    """Take the configured key, else derive one from the secret that signs access tokens.

    Raises:
        InvalidSettingsError: a key is configured, and cannot be read.
    """
    if settings.signing_key is not None:
        try:
            return Ed25519Signer(_read_seed(settings.signing_key.get_secret_value()))
        except UnreadableKeyError as exc:
            raise InvalidSettingsError([f"MAAS_AUDIT__SIGNING_KEY: {exc}"]) from exc
    if settings.signing_key_file is not None:
        try:
            return Ed25519Signer(_read_seed(_read_file(settings.signing_key_file)))
        except UnreadableKeyError as exc:
            raise InvalidSettingsError([f"MAAS_AUDIT__SIGNING_KEY_FILE: {exc}"]) from exc
    derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=_PURPOSE)
    return Ed25519Signer(derived.derive(secret_key.encode()))


def read_public_keys(paths: Iterable[Path]) -> PublicKeys:
    """Read one key from each file: PEM, or 32 bytes in base64 or hexadecimal.

    Raises:
        UnreadableKeyError: a file cannot be read, or holds something else.
    """
    keys = [_read_public_key(path) for path in paths]
    return {key_id_of(key): key for key in keys}


def _read_public_key(path: Path) -> bytes:
    text = _read_file(path).strip()
    if not text.startswith(_PEM):
        return _read_raw(text)
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise UnreadableKeyError(f"{path} holds no public key") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise UnreadableKeyError(f"{path} holds a key that is not Ed25519")
    return key.public_bytes_raw()


def _read_seed(text: str) -> bytes:
    text = text.strip()
    if not text.startswith(_PEM):
        return _read_raw(text)
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise UnreadableKeyError("not a private key in PEM without a passphrase") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise UnreadableKeyError("the key is not Ed25519")
    return key.private_bytes_raw()


def _read_raw(text: str) -> bytes:
    for decode in (bytes.fromhex, _from_base64):
        try:
            raw = decode(text)
        except (ValueError, binascii.Error):
            continue
        if len(raw) == KEY_BYTES:
            return raw
    raise UnreadableKeyError("neither PEM nor 32 bytes in base64")


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as exc:
        raise UnreadableKeyError(f"{path} cannot be read") from exc
