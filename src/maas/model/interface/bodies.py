"""Bodies of bytes: what their headers say, and the stream of a caller who keeps up a pace."""

import re
from collections.abc import AsyncIterator
from typing import Final

from fastapi import Request
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from maas.model.application.ports import BodyCutOffError
from maas.model.domain.file import DEFAULT_MEDIA_TYPE
from maas.model.interface.pace import UPLOAD_SECONDS, Pace
from maas.shared.domain.errors import UnsupportedMediaError

OCTETS = {"schema": {"type": "string", "format": "binary"}}
MAX_MEDIA_TYPE_CHARS: Final = 127

_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")


def bare_media_type(text: str) -> str:
    """Leave out a media type's parameters."""
    return text.partition(";")[0].strip().lower()


def media_type_or_default(text: str) -> str:
    """Read a media type without its parameters; what is none is a file like any other."""
    value = bare_media_type(text)
    is_fit = len(value) <= MAX_MEDIA_TYPE_CHARS and _MEDIA_TYPE.fullmatch(value)
    return value if is_fit else DEFAULT_MEDIA_TYPE


def announced_size(headers: Headers) -> int | None:
    """Tell how many bytes the body has, if the headers do."""
    size = headers.get("content-length", "")
    return int(size) if size.isdecimal() else None


def check_plain(headers: Headers) -> None:
    """Refuse an encoded body.

    Raises:
        UnsupportedMediaError: it is one.
    """
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaError("Send the bytes as they are, without Content-Encoding.")


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
