"""Digests on the wire: RFC 9530's `Content-Digest` and `Repr-Digest`, and plain hexadecimal."""

import base64
import binascii
import re

from starlette.datastructures import Headers

from maas.model.domain.blob import Digest, InvalidDigestError

HEX_HEADER = "X-Checksum-SHA256"
_MEMBER = re.compile(r"\s*(?P<name>[a-z*][a-z0-9_.*-]*)=:(?P<value>[A-Za-z0-9+/=]*):\s*(?:,|$)")


def format_digest(digest: Digest) -> str:
    return f"sha-256=:{base64.b64encode(digest.value).decode('ascii')}:"


def announced_digests(headers: Headers) -> frozenset[Digest]:
    """Read the SHA-256 digests a request announces; other algorithms are passed over.

    Raises:
        InvalidDigestError: a header cannot be read.
    """
    found = {Digest.from_hex(value.strip()) for value in headers.getlist(HEX_HEADER)}
    for name in ("Content-Digest", "Repr-Digest"):
        for value in headers.getlist(name):
            found |= _sha256_in(value)
    return frozenset(found)


def _sha256_in(header: str) -> set[Digest]:
    found: set[Digest] = set()
    position = 0
    while position < len(header):
        member = _MEMBER.match(header, position)
        if member is None:
            raise InvalidDigestError("Send a digest as `sha-256=:<base64 of its 32 bytes>:`.")
        position = member.end()
        if member["name"] == "sha-256":
            found.add(_decode(member["value"]))
    return found


def _decode(text: str) -> Digest:
    try:
        return Digest(base64.b64decode(text, validate=True))
    except binascii.Error:
        raise InvalidDigestError from None
