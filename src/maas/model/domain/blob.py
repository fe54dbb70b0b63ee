"""Bytes that are kept once, however many versions hold them: a manifest of immutable parts."""

import re
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Protocol, Self
from uuid import UUID

from typing_extensions import override

from maas.shared.domain.errors import InvalidInputError

DIGEST_BYTES = 32

_HEX = re.compile(r"[0-9A-Fa-f]{64}")


class InvalidDigestError(InvalidInputError):
    code = "invalid-digest"
    title = "Not a SHA-256"

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or "A SHA-256 has 32 bytes, which is 64 hexadecimal digits.")


class DigestMismatchError(InvalidInputError):
    code = "digest-mismatch"
    title = "The bytes are not those that were announced"

    def __init__(self) -> None:
        super().__init__(
            "The SHA-256 of what arrived differs from the digest sent with it; nothing was kept."
        )


@dataclass(frozen=True, slots=True)
class Digest:
    """A SHA-256; its text is lower-case hexadecimal."""

    value: bytes

    def __post_init__(self) -> None:
        if len(self.value) != DIGEST_BYTES:
            raise InvalidDigestError

    @classmethod
    def from_hex(cls, text: str) -> Self:
        if not _HEX.fullmatch(text):
            raise InvalidDigestError
        return cls(bytes.fromhex(text))

    @override
    def __str__(self) -> str:
        return self.value.hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a blob, written once under its own key; `size` is in bytes."""

    key: str
    size: int
    sha256: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A whole file: its digest, its size in bytes, and its parts in order; none if it is empty.

    Raises:
        ValueError: the parts do not add up to the size.
    """

    sha256: Digest
    size: int
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if sum(part.size for part in self.parts) != self.size:
            message = "the parts of a blob must add up to its size"
            raise ValueError(message)

    def parts_between(self, start: int, stop: int) -> list[tuple[Part, int, int]]:
        """List the parts that hold bytes `start` up to `stop`, each with its own start and stop."""
        ends = list(accumulate(part.size for part in self.parts))
        return [
            (part, max(0, start - (end - part.size)), min(part.size, stop - (end - part.size)))
            for part, end in zip(self.parts, ends, strict=True)
            if end > start and end - part.size < stop
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A blob whose parts are durable, and that no file refers to yet."""

    id: UUID
    blob: Blob


class BlobRepository(Protocol):
    async def claim(self, upload_id: UUID) -> None:
        """Wait for any other transaction about this upload, and let none begin before this ends."""
        ...

    async def find(self, sha256: Digest) -> Blob | None:
        """Look up what is kept of these bytes."""
        ...

    async def keep(self, blob: Blob, *, at: datetime, instead_of: Blob | None = None) -> bool:
        """Have the blob; False if its bytes were kept before, so that these parts are not needed.

        Parts `instead_of` which it shall be kept are let go, unless somebody else was quicker. The
        row is locked until the commit: whoever frees unused blobs waits for the new file.
        """
        ...

    async def holds(self, key: str) -> bool:
        """Tell whether a kept blob has the part of this key."""
        ...
