"""The body of a request as a stream of bytes, from a caller who keeps up a least pace."""

from collections.abc import AsyncIterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from maas.model.application.ports import BodyCutOffError
from maas.model.interface.pace import UPLOAD_SECONDS, Pace

OCTETS = {"schema": {"type": "string", "format": "binary"}}


async def body_of(request: Request) -> AsyncIterator[bytes]:
    """Give the body as it comes; a caller who hangs up or is too slow ends it with a refusal."""
    stream, pace = request.stream(), Pace(UPLOAD_SECONDS)
    while True:
        try:
            async with pace.waiting():
                chunk = await anext(stream, None)
        except ClientDisconnect:
            raise BodyCutOffError from None
        if chunk is None:
            return
        pace.moved(len(chunk))
        yield chunk
