"""The runtime host's HTTP face: OpenAI's routes below each version, for the API alone."""

import asyncio
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final
from uuid import UUID

import structlog
from starlette.types import Message, Receive, Scope, Send

from maas.inference.application.runtime import RuntimeService
from maas.inference.application.runtime_answers import spell, spell_error
from maas.inference.public import CallKind
from maas.model.public import VersionId
from maas.shared.domain.errors import InvalidInputError, MaasError
from maas.shared.interface.problems import problem_of

MAX_BODY_BYTES: Final = 64 * 1024**2

_KINDS: Final[dict[str, CallKind]] = {
    "chat/completions": "chat",
    "completions": "completions",
    "embeddings": "embeddings",
}
_PATH: Final = re.compile(r"/versions/([0-9a-f-]{36})/v1/(chat/completions|completions|embeddings)")

_BODY: Final = "http.response.body"

_log = structlog.get_logger(__name__)


class _HungUpError(Exception):
    """The caller left."""


class _RefusedError(Exception):
    """The request is not one of ours."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.answer = spell_error(message, kind="invalid_request_error", code=code)


class RuntimeServer:
    """An ASGI application. `opened` runs before the first request, `closing` after the last."""

    def __init__(
        self,
        service: RuntimeService,
        *,
        token: str,
        opened: Callable[[], Awaitable[None]],
        closing: Callable[[], Awaitable[None]],
    ) -> None:
        self._service = service
        self._authorization = f"Bearer {token}".encode()
        self._opened = opened
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            await self._serve(scope, receive, send)
        except _RefusedError as exc:
            await _send_json(send, exc.status, exc.answer)
        except _HungUpError:
            pass

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._opened()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._closing()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path == "/health":
            await _send_json(send, 200, {"status": "ok"})
            return
        self._authenticate(scope)
        if path == "/models":
            await _send_json(send, 200, {"models": self._list_models()})
            return
        found = _PATH.fullmatch(path)
        if found is None:
            raise _RefusedError(404, "There is no such route.", "not-found")
        if scope["method"] != "POST":
            raise _RefusedError(405, "Use POST.", "method-not-allowed")
        version_id, kind = _read_version(found[1]), _KINDS[found[2]]
        body = _parse(await _read_body(receive))
        await _unless_gone(receive, self._answer(version_id, kind, body, send))

    def _authenticate(self, scope: Scope) -> None:
        given = b"".join(value for name, value in scope["headers"] if name == b"authorization")
        if not hmac.compare_digest(given, self._authorization):
            message = (
                "The runtime is called with a token that follows from MAAS_SECRET_KEY, which is "
                "another one here."
            )
            raise _RefusedError(401, message, "invalid-runtime-token")

    def _list_models(self) -> list[dict[str, object]]:
        return [
            {
                "version_id": str(each.version_id),
                "name": each.name,
                "mode": each.mode,
                "memory_bytes": each.memory_bytes,
                "answering": each.answering,
            }
            for each in self._service.pool.list_loaded()
        ]

    async def _answer(
        self, version_id: VersionId, kind: CallKind, body: dict[str, object], send: Send
    ) -> None:
        has_begun = False
        try:
            async with self._service.answering(version_id, kind, body) as answer:
                if answer.events is None:
                    await _send(send, answer.status, answer.body)
                    return
                await send(_head(answer.status, b"text/event-stream"))
                has_begun = True
                async for event in answer.events:
                    await send({"type": _BODY, "body": event, "more_body": True})
                await send({"type": _BODY, "body": b""})
        except MaasError as exc:
            if has_begun:
                # Nothing ends the body, so the connection is cut and the caller knows.
                _log.warning("answer_broke_off", version_id=str(version_id), code=exc.code)
            else:
                await _refuse(send, exc)


async def _unless_gone(receive: Receive, work: Coroutine[None, None, None]) -> None:
    """Work until it is done or the caller leaves, which cancels it."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_wait_until_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read_body(receive: Receive) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _HungUpError
        piece: bytes = message.get("body", b"")
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise _RefusedError(413, "The request is too large.", "payload-too-large")
        if not message.get("more_body"):
            return b"".join(pieces)


def _parse(body: bytes) -> dict[str, object]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise _RefusedError(400, "The body must be a JSON object.", "invalid-input")
    return parsed


def _read_version(text: str) -> VersionId:
    try:
        return VersionId(UUID(text))
    except ValueError:
        raise _RefusedError(404, "There is no such route.", "not-found") from None


async def _refuse(send: Send, error: MaasError) -> None:
    problem = problem_of(error)
    # What OpenAI refuses in a request is a 400, whatever is wrong in it.
    status = 400 if isinstance(error, InvalidInputError) else problem.status
    kind = "invalid_request_error" if status < 500 else "server_error"  # noqa: PLR2004  its own
    param = str(error.loc[0]) if isinstance(error, InvalidInputError) and error.loc else None
    answer = spell_error(problem.detail, kind=kind, code=problem.code, param=param)
    headers = [(name.lower().encode(), text.encode()) for name, text in problem.headers.items()]
    await _send(send, status, spell(answer), headers)


async def _send_json(send: Send, status: int, answer: object) -> None:
    await _send(send, status, spell(answer))


async def _send(
    send: Send, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(_head(status, b"application/json", length, *headers))
    await send({"type": _BODY, "body": body})


def _head(status: int, media_type: bytes, *headers: tuple[bytes, bytes]) -> Message:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", media_type), *headers],
    }
