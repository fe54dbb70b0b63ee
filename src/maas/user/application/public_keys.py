"""The keys that let others verify our access tokens by themselves."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A point on P-256, its coordinates in base64url; `kid` is its thumbprint (RFC 7638)."""

    kid: str
    x: str
    y: str
