"""How the API reaches a version of the registry at the runtime host."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from maas.inference.domain.route import Endpoint
from maas.inference.public import CallKind
from maas.model.public import VersionId

PATHS: Final[Mapping[CallKind, str]] = {
    "chat": "v1/chat/completions",
    "completions": "v1/completions",
    "embeddings": "v1/embeddings",
}

FETCHED_WITHIN: Final = timedelta(minutes=1)
"""From the registry to the runtime's disk, before a file is loaded."""


def derive_token(secret_key: str) -> str:
    """Derive what the API shows the runtime host: both have the server's secret key."""
    derivation = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"maas runtime v1")
    return derivation.derive(secret_key.encode()).hex()


def endpoint_of(
    url: str,
    *,
    token: str,
    version_id: VersionId,
    model: str,
    loads_within: timedelta = timedelta(0),
) -> Endpoint:
    """Make the endpoint of a version; `url` is the setting, `token` is derived once a process."""
    base = f"{url.rstrip('/')}/versions/{version_id}"
    return Endpoint(
        protocol="openai",
        reach="runtime",
        provider_kind=None,
        urls={kind: f"{base}/{path}" for kind, path in PATHS.items()},
        model=model,
        headers={"authorization": f"Bearer {token}"},
        ready_within=loads_within + FETCHED_WITHIN,
    )
