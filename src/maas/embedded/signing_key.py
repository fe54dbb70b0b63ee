"""The keys that sign access tokens (ES256) and the audit trail (Ed25519).

Each is made on the first start that wants one, and then stays.
"""

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from maas.embedded import storage
from maas.embedded.credentials import close_to_others, write_atomically
from maas.shared.infrastructure.signing_keys import generate_private_pem


def ensure_signing_key(path: Path) -> bool:
    """Make the key unless it is there; tell whether others could read it, until now."""
    return _ensure(path, generate_private_pem)


def ensure_audit_key(path: Path) -> bool:
    """Make the audit trail's key, likewise."""
    return _ensure(path, _generate_audit_pem)


def _ensure(path: Path, generate: Callable[[], str]) -> bool:
    with storage.explained(path.parent):
        if os.path.lexists(path):
            return close_to_others(path)
        write_atomically(path, generate())
        return False


def _generate_audit_pem() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
