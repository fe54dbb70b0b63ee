"""Reading an answer on its way, whole or piece by piece, within what memory there is for it."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Final

from typing_extensions import override

from maas.inference.application.bills import Bill
from maas.inference.application.ports import Attempt, UpstreamError
from maas.inference.domain.quoting import quotes_secret
from maas.inference.domain.wire import BrokenStreamError, Refusal, Wire
from maas.inference.public import CallKind
from maas.shared.domain.errors import InvalidInputError

CLOSE_SECONDS: Final = 0.3
MAX_REFUSAL_BYTES: Final = 64 * 1024
REFUSAL_SECONDS: Final = 5.0

MOST_ANSWER_BYTES: Final[Mapping[CallKind, int]] = {
    "chat": 16 * 1024 * 1024,
    "completions": 16 * 1024 * 1024,
    "embeddings": 128 * 1024 * 1024,
}
"""Of a plain answer; embeddings of 2,048 texts have some 100 MB in the longest spelling."""


class RefusedRequestError(InvalidInputError):
    """What answers says that the request itself is wrong; its words are for the caller."""

    code = "refused-by-upstream"
    title = "What answers for this model refuses the request"

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal

    @property
    @override
    def extensions(self) -> Mapping[str, object]:
        told = self.refusal
        return {"upstream": {"status": told.status, "param": told.param, "code": told.code}}


async def feed(attempt: Attempt, bill: Bill) -> AsyncGenerator[bytes, None]:
    """Pass on what comes, until the answer is whole: what breaks off after that is no loss."""
    stream = bill.stream
    assert stream is not None  # noqa: S101  it was made a moment ago
    try:
        async with aclosing(attempt.response.chunks()) as chunks:
            async for chunk in chunks:
                piece = stream.feed(chunk)
                if piece:
                    bill.let_go()
                    yield piece
                else:
                    bill.hold(len(chunk))
                if stream.is_over:
                    await _wait_for_close(chunks)
                    return
    except UpstreamError:
        if not stream.is_whole:
            raise


async def _wait_for_close(chunks: AsyncGenerator[bytes, None]) -> None:
    """Wait a moment for an answer to end that is over: its connection can be used again then."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            async for _ in chunks:
                pass


async def read_whole(attempt: Attempt, wire: Wire, bill: Bill) -> bytes:
    """Read a whole answer.

    Raises:
        BrokenStreamError: it is longer than any is.
        RefusedRequestError: it says that the request is wrong.
        TooManyCallsError: too much of others is in memory.
        UpstreamError: it breaks off.
    """
    status = attempt.response.status
    if status >= HTTPStatus.BAD_REQUEST:
        told = wire.refusal(status, await _read_refusal(attempt))
        raise RefusedRequestError(_without_secrets(attempt, status, told))
    most = MOST_ANSWER_BYTES[bill.charge.ask.kind]
    parts, size = list[bytes](), 0
    async with aclosing(attempt.response.chunks()) as chunks:
        async for chunk in chunks:
            bill.hold(len(chunk))
            parts.append(chunk)
            size += len(chunk)
            if size > most:
                raise BrokenStreamError
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _read_refusal(attempt: Attempt) -> bytes:
    """Read why the request is wrong, as far as it is told soon and in few words."""
    body = bytearray()
    with suppress(TimeoutError):
        async with (
            asyncio.timeout(REFUSAL_SECONDS),
            aclosing(attempt.response.chunks()) as chunks,
        ):
            async for chunk in chunks:
                body += chunk
                if len(body) >= MAX_REFUSAL_BYTES:
                    break
    return bytes(body)


def _without_secrets(attempt: Attempt, status: int, told: Refusal | None) -> Refusal:
    """Take an upstream's words as they are, unless it quotes what only it and we may know."""
    unsaid = Refusal(status=status, message="It does not say what is wrong with it.")
    if told is None:
        return unsaid
    said = f"{told.message} {told.param} {told.code}"
    return unsaid if quotes_secret(said, attempt.facts.target.endpoint.headers) else told
