"""Idempotency-Key under `/v1`: which key a call carries, and what it asks."""

import asyncio
import hashlib
from typing import Final

from fastapi import Request

from maas.inference.application.replays import ReplayKey
from maas.shared.interface.idempotency import read_key
from maas.shared.interface.security import known_caller

LONG_BYTES: Final = 512 * 1024


async def replay_of(request: Request, body: bytes) -> ReplayKey | None:
    """Read the key of a call, if it has one.

    Raises:
        InvalidIdempotencyKeyError: it is empty, too long, not visible ASCII, or sent twice.
    """
    if (key := read_key(request)) is None:
        return None
    principal = known_caller()
    # What is long is digested elsewhere: the event loop has others to serve.
    spelled = (request.scope["path"].encode(), body)
    digest = (
        await asyncio.to_thread(_digest, *spelled) if len(body) > LONG_BYTES else _digest(*spelled)
    )
    return ReplayKey(
        tenant_id=principal.tenant_id,
        credential_id=principal.credential_id,
        key=key,
        body_digest=digest,
    )


def _digest(path: bytes, body: bytes) -> bytes:
    digest = hashlib.sha256(path + b"\x00")
    digest.update(body)
    return digest.digest()
