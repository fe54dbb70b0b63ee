"""The key that signs access tokens with ES256, made on the first start that wants one."""

import os
from pathlib import Path

from maas.embedded import storage
from maas.embedded.credentials import close_to_others, write_atomically
from maas.shared.infrastructure.signing_keys import generate_private_pem


def ensure_signing_key(path: Path) -> bool:
    """Make the key unless it is there; tell whether others could read it, until now."""
    with storage.explained(path.parent):
        if os.path.lexists(path):
            return close_to_others(path)
        write_atomically(path, generate_private_pem())
        return False
