"""Keys that sign access tokens with ES256: read, checked and made; P-256 and no other curve."""

from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

MAX_PEM_BYTES: Final = 16 * 1024
HOW_TO_MAKE_ONE: Final = "make one with `openssl ecparam -name prime256v1 -genkey -noout`"


class UnfitKeyError(ValueError):
    """It is no key that can be used; says why, and shows nothing of it."""


def read_private_pem(pem: str) -> EllipticCurvePrivateKey:
    """Read a private key on P-256.

    Raises:
        UnfitKeyError: it is something else.
    """
    if "PUBLIC KEY" in pem:
        message = (
            f"this is a public key, which cannot sign: give the private one, or {HOW_TO_MAKE_ONE}"
        )
        raise UnfitKeyError(message)
    try:
        key = load_pem_private_key(_normalized(pem), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        message = f"needs a private key in PEM form, without a passphrase; {HOW_TO_MAKE_ONE}"
        raise UnfitKeyError(message) from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        message = f"needs a key on the curve P-256, and this is another; {HOW_TO_MAKE_ONE}"
        raise UnfitKeyError(message)
    return key


def read_public_pem(pem: str) -> EllipticCurvePublicKey:
    """Read a public key on P-256, or the public half of a private one.

    Raises:
        UnfitKeyError: it is something else.
    """
    if "PUBLIC KEY" not in pem:
        return read_private_pem(pem).public_key()
    try:
        key = load_pem_public_key(_normalized(pem))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        message = "needs a key in PEM form"
        raise UnfitKeyError(message) from None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        message = "needs a key on the curve P-256, and this is another"
        raise UnfitKeyError(message)
    return key


def read_pem_file(path: Path) -> str:
    """Read a key's file.

    Raises:
        UnfitKeyError: it cannot be read, or is far too long for a key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PEM_BYTES + 1)
    except OSError as exc:
        message = f"{path} cannot be read: {exc.strerror}"
        raise UnfitKeyError(message) from None
    if len(content) > MAX_PEM_BYTES:
        message = f"{path} is too long for a key"
        raise UnfitKeyError(message)
    return content.decode("ascii", errors="replace")


def generate_private_pem() -> str:
    """Make a private key on P-256."""
    return (
        generate_private_key(SECP256R1())
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode()
    )


def _normalized(pem: str) -> bytes:
    r"""Undo what a single line of `.env` makes of a PEM: its line ends spelled as `\n`."""
    return pem.replace("\\n", "\n").strip().encode() + b"\n"
