"""The answer to a download: its headers, and bytes that were checked before they leave."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from urllib.parse import quote

from fastapi import Request, Response

from maas.audit.public import current_scope
from maas.model.application.files import FileService
from maas.model.application.queries import StoredFile
from maas.model.domain.file import DEFAULT_MEDIA_TYPE, FilePath
from maas.model.interface.dependencies import Files
from maas.model.interface.digests import format_digest
from maas.model.interface.pace import PacedResponse
from maas.model.interface.ranges import UnsatisfiableRange, wanted_span
from maas.shared.domain.principal import Principal
from maas.shared.interface.etags import is_none_match
from maas.shared.interface.problems import Faces, Problem
from maas.shared.interface.security import Caller

UNSATISFIABLE = Problem(
    status=416,
    code="range-not-satisfiable",
    title="The file has no such bytes",
    detail="The range begins past the end of the file; `Content-Range` tells its size.",
)

_FILENAME_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+ ")


async def refuse_without_slot(request: Request, caller: Caller, files: Files) -> None:
    """Turn a download away before anything is asked for it, if its caller has no slot left.

    Whoever has too many under way comes again and again: no query is made for that, and no event
    told, as of a rate limit. A HEAD and a check of a copy take no slot.

    Raises:
        TooManyOwnTransfersError.
    """
    if request.method == "GET" and "if-none-match" not in request.headers:
        files.transfers.check(caller.account_id)


async def answer_download(
    request: Request, files: FileService, caller: Principal, stored: StoredFile
) -> Response:
    """Answer with the file, a range of it, 304 or 416; a HEAD, with the headers of the file.

    The first bytes are read and checked before the status is sent, so a damaged file is a problem
    document; one damaged further on breaks the connection.
    """
    headers, etag, size = _headers(stored), f'"{stored.blob.sha256}"', stored.blob.size
    known = request.headers.get("if-none-match")
    if known is not None and not is_none_match(known, etag):
        current_scope().skip()
        return Response(status_code=304, headers={"ETag": etag})
    if request.method == "HEAD":
        # Nothing was downloaded, so nothing is in the trail; ranges are for GET alone.
        current_scope().skip()
        headers |= {"Content-Length": str(size), "Content-Digest": headers["Repr-Digest"]}
        return Response(headers=headers, media_type=DEFAULT_MEDIA_TYPE)
    try:
        span = wanted_span(
            request.headers.get("range"),
            if_range=request.headers.get("if-range"),
            etag=etag,
            size=size,
        )
    except UnsatisfiableRange:
        current_scope().skip()
        return Faces().render(_unsatisfiable(size), request.scope)
    if span is not None:
        headers["Content-Range"] = span.content_range
    else:
        headers["Content-Digest"] = headers["Repr-Digest"]
    start, stop = (0, size) if span is None else (span.start, span.stop)
    headers["Content-Length"] = str(stop - start)
    chunks = files.read(caller, stored, start=start, stop=stop)
    first = await anext(chunks, b"")
    return PacedResponse(
        _sending(first, chunks),
        status_code=200 if span is None else 206,
        headers=headers,
        media_type=DEFAULT_MEDIA_TYPE,
    )


async def _sending(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk


def _headers(stored: StoredFile) -> dict[str, str]:
    return {
        "ETag": f'"{stored.blob.sha256}"',
        "Accept-Ranges": "bytes",
        "Repr-Digest": format_digest(stored.blob.sha256),
        "Content-Disposition": content_disposition(stored.path),
    }


def content_disposition(path: FilePath) -> str:
    """Have browsers save the file under its own name, and never show it (RFC 6266)."""
    plain = "".join(char if char in _FILENAME_CHARS else "_" for char in path.name)
    if plain == path.name:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(path.name, safe='')}"


def _unsatisfiable(size: int) -> Problem:
    return replace(UNSATISFIABLE, headers={"Content-Range": f"bytes */{size}"})
