"""The ciphers that seal: each is named in what it sealed, so that values of both lie side by side.

AES-256-GCM for everybody, and SM4-GCM, whose keys come from SM3, where only those are allowed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.hashes import SM3
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

Algorithm: TypeAlias = Literal["aes-256-gcm", "sm4-gcm"]
Crypt: TypeAlias = Callable[[bytes, bytes, bytes, bytes], bytes]
"""Key, nonce, text and what it is bound to."""

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_AES_KEY_BYTES: Final = 32
_SM4_KEY_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingCipher:
    """One way to seal. Decrypting raises InvalidTag or ValueError, and nothing else."""

    number: int
    key_bytes: int
    wrapping_key: Callable[[bytes], bytes]
    """Makes what wraps data keys out of a key of the ring."""

    encrypt: Crypt
    decrypt: Crypt

    @property
    def wrapped_bytes(self) -> int:
        """Tell how long a wrapped data key is, with its nonce."""
        return NONCE_BYTES + self.key_bytes + TAG_BYTES


def _as_is(key: bytes) -> bytes:
    return key


def _encrypt_aes(key: bytes, nonce: bytes, plain: bytes, bound: bytes) -> bytes:
    return AESGCM(key).encrypt(nonce, plain, bound)


def _decrypt_aes(key: bytes, nonce: bytes, sealed: bytes, bound: bytes) -> bytes:
    return AESGCM(key).decrypt(nonce, sealed, bound)


def _sm4_key(key: bytes) -> bytes:
    return HKDF(
        algorithm=SM3(), length=_SM4_KEY_BYTES, salt=None, info=b"maas sealing sm4-gcm v1"
    ).derive(key)


def _encrypt_sm4(key: bytes, nonce: bytes, plain: bytes, bound: bytes) -> bytes:
    encryptor = Cipher(SM4(key), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(bound)
    return encryptor.update(plain) + encryptor.finalize() + encryptor.tag


def _decrypt_sm4(key: bytes, nonce: bytes, sealed: bytes, bound: bytes) -> bytes:
    ciphertext, tag = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
    # A shorter tag is refused here, before it could be guessed.
    decryptor = Cipher(SM4(key), modes.GCM(nonce, tag)).decryptor()
    decryptor.authenticate_additional_data(bound)
    return decryptor.update(ciphertext) + decryptor.finalize()


def is_supported(cipher: SealingCipher) -> bool:
    """Tell whether this system's OpenSSL has what the cipher needs."""
    try:
        cipher.encrypt(cipher.wrapping_key(bytes(_AES_KEY_BYTES)), bytes(NONCE_BYTES), b"", b"")
    except UnsupportedAlgorithm:
        return False
    return True


CIPHERS: Final[Mapping[Algorithm, SealingCipher]] = {
    "aes-256-gcm": SealingCipher(
        number=1,
        key_bytes=_AES_KEY_BYTES,
        wrapping_key=_as_is,
        encrypt=_encrypt_aes,
        decrypt=_decrypt_aes,
    ),
    "sm4-gcm": SealingCipher(
        number=2,
        key_bytes=_SM4_KEY_BYTES,
        wrapping_key=_sm4_key,
        encrypt=_encrypt_sm4,
        decrypt=_decrypt_sm4,
    ),
}
CIPHERS_BY_NUMBER: Final = {cipher.number: cipher for cipher in CIPHERS.values()}
