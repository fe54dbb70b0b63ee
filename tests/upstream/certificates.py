"""TLS as suppliers have it, and as they should not: each with its own fault."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, get_args

import trustme

Variant = Literal["good", "unknown", "expired", "wrong-host"]
VARIANTS: Final[tuple[Variant, ...]] = get_args(Variant)

NAMES: Final = ("127.0.0.1", "localhost", "supplier.test")
"""Whom a good certificate is for; `supplier.test` is what a resolver of a test leads here."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A company's own authority, and another that nobody knows."""

    known: trustme.CA
    unknown: trustme.CA

    @classmethod
    def make(cls) -> "Authority":
        return cls(trustme.CA(), trustme.CA())

    def context(self, variant: Variant) -> ssl.SSLContext:
        """Make what a server listens with."""
        signer = self.unknown if variant == "unknown" else self.known
        names = ("elsewhere.test",) if variant == "wrong-host" else NAMES
        now = datetime.now(UTC)  # noqa: TID251  certificates are good by the real time
        until = now - timedelta(days=1) if variant == "expired" else now + timedelta(days=1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = signer.issue_cert(*names, not_before=now - timedelta(days=2), not_after=until)
        certificate.configure_cert(context)
        return context

    def write(self, path: Path) -> Path:
        """Write the known authority's certificate, as an operator would name it in a setting."""
        self.known.cert_pem.write_to_path(str(path))
        return path
