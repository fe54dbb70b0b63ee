"""The strict reader of request bodies, and the route class that puts it before validation."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, get_args, get_origin

from fastapi import Request, params
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope
from typing_extensions import override

from maas.shared.domain.call import current_call
from maas.shared.domain.errors import (
    PayloadTooLargeError,
    SlowRequestError,
    UnsupportedMediaError,
)
from maas.shared.interface.etags import is_none_match
from maas.shared.interface.idempotency import RENDER_ATTRIBUTE, Render, claim_of
from maas.shared.interface.problems import FaceContract
from maas.shared.interface.routes import route_template
from maas.shared.interface.security import Requirement, authenticate
from maas.shared.interface.strict_form import check_form
from maas.shared.interface.strict_json import parse_json
from maas.shared.interface.traffic import BODY_KEY, IncomingBody

BODY_TIMEOUT_SECONDS = 30.0
JSON_MEDIA_TYPE = "application/json"
FORM_MEDIA_TYPE = "application/x-www-form-urlencoded"

_UNKNOWN = "The route has no query parameter of this name"
_REPEATED = "Send this query parameter once"

_CHARSET = re.compile(r'(?:charset="?utf-?8"?)?')

RouteHandler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """How much of a body a class of routes reads; no `max_bytes` means the server's setting."""

    max_bytes: int | None = None
    max_depth: int = 32


class StrictRoute(APIRoute):
    """A route of `/api/v1`: strict bodies and queries, `Idempotency-Key`, `If-None-Match`.

    A route with form parameters reads a form and nothing else; one without body parameters leaves
    the body alone, so it may stream it. Subclass with other `limits` for another face.
    """

    limits: ClassVar[BodyLimits] = BodyLimits()
    face: ClassVar[FaceContract | None] = None
    """How problems are spelled, if not as problem documents."""
    spares_unchanged: ClassVar[bool] = True
    """Whether a copy with the same `ETag` is answered with 304; not where it is of a part alone."""

    @override
    def get_route_handler(self) -> RouteHandler:
        handle = super().get_route_handler()
        render = getattr(self.endpoint, RENDER_ATTRIBUTE, None)
        if render is not None:
            handle = _claiming_first(handle, limits=self.limits, render=render)
        if self.body_field is not None:
            is_form = isinstance(self.body_field.field_info, params.Form)
            handle = _reading_first(handle, limits=self.limits, is_form=is_form)
        if self.spares_unchanged and self.methods is not None and "GET" in self.methods:
            handle = _sparing_the_unchanged(handle)
        handle = _knowing_its_query(handle, self.dependant)
        return _knowing_its_caller(handle) if _asks_who_calls(self.dependant) else handle


def _knowing_its_caller(handle: RouteHandler) -> RouteHandler:
    """Find out who calls before any work is done for them, or for a credential that is no good."""

    async def authenticate_then_handle(request: Request) -> Response:
        await authenticate(request)
        return await handle(request)

    return authenticate_then_handle


def _asks_who_calls(dependant: Dependant) -> bool:
    if dependant.call is authenticate or isinstance(dependant.call, Requirement):
        return True
    return any(map(_asks_who_calls, dependant.dependencies))


def _knowing_its_query(handle: RouteHandler, dependant: Dependant) -> RouteHandler:
    """Refuse what would be passed over in silence: a filter misspelt or sent twice filters nothing.

    It takes plain parameters, not the fields of a model in `Query()`.
    """
    is_list = dict(_query_of(dependant))

    async def check_query_then_handle(request: Request) -> Response:
        if request.scope["query_string"]:
            _check_query(request.query_params, is_list)
        return await handle(request)

    return check_query_then_handle


def _query_of(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    for field in dependant.query_params:
        yield field.alias, _is_list(field.field_info.annotation)
    for dependency in dependant.dependencies:
        yield from _query_of(dependency)


def _is_list(annotation: object) -> bool:
    """Tell whether a list may stand there, optional or not."""
    return get_origin(annotation) is list or any(map(_is_list, get_args(annotation)))


def _check_query(query: QueryParams, is_list: Mapping[str, bool]) -> None:
    errors = []
    for name, count in Counter(name for name, _ in query.multi_items()).items():
        if name not in is_list:
            errors.append({"type": "unknown_parameter", "loc": ("query", name), "msg": _UNKNOWN})
        elif count > 1 and not is_list[name]:
            errors.append({"type": "repeated_parameter", "loc": ("query", name), "msg": _REPEATED})
    if errors:
        raise RequestValidationError(errors)


async def read_body(request: Request, *, limits: BodyLimits) -> bytes:
    """Read the whole body, once, within the limits on size and time.

    Raises:
        PayloadTooLargeError: announced or actually longer than the limit.
        SlowRequestError: not all there after 30 s.
        UnavailableError: while it was awaited, others took the request's place.
    """
    if hasattr(request, "_body"):
        return await request.body()
    max_bytes: int = limits.max_bytes or request.app.state.max_body_bytes
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > max_bytes:
        raise _too_large(max_bytes)
    incoming: IncomingBody = request.scope[BODY_KEY]
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            body = await _receive_all(request, incoming, max_bytes)
    except TimeoutError:
        raise SlowRequestError(f"Send the body within {BODY_TIMEOUT_SECONDS:.0f} s.") from None
    finally:
        incoming.let_go()
    incoming.take_place()
    request._body = body  # noqa: SLF001  what `Request.body()` itself keeps
    return body


async def _receive_all(request: Request, incoming: IncomingBody, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        incoming.hold(size)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _too_large(max_bytes: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"The body may have {max_bytes} bytes.")


def check_media(scope: Scope, *, is_form: bool) -> None:
    """Refuse bodies of another type, charset or encoding than the route reads.

    Raises:
        UnsupportedMediaError: it says what to send instead.
    """
    headers = Headers(scope=scope)
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaError("Send the body as it is, without Content-Encoding.")
    wanted = FORM_MEDIA_TYPE if is_form else JSON_MEDIA_TYPE
    values = headers.getlist("content-type")
    media_type, _, parameters = (values[0] if len(values) == 1 else "").partition(";")
    if media_type.strip().lower() != wanted:
        raise UnsupportedMediaError(f"Send the body as `Content-Type: {wanted}`.")
    if _CHARSET.fullmatch(parameters.strip().lower()) is None:
        raise UnsupportedMediaError("Send the body in UTF-8, the only charset taken.")


def _reading_first(handle: RouteHandler, *, limits: BodyLimits, is_form: bool) -> RouteHandler:
    async def read_then_handle(request: Request) -> Response:
        body = await read_body(request, limits=limits)
        if body:
            check_media(request.scope, is_form=is_form)
            if is_form:
                check_form(body)
            else:
                # FastAPI would parse the bytes leniently by itself: it finds them parsed instead.
                request._json = parse_json(body, max_depth=limits.max_depth)  # noqa: SLF001  see above
        return await handle(request)

    return read_then_handle


def _claiming_first(handle: RouteHandler, *, limits: BodyLimits, render: Render) -> RouteHandler:
    async def claim_then_handle(request: Request) -> Response:
        body = await read_body(request, limits=limits)
        current_call().idempotency = claim_of(
            request, render=render, route=route_template(request.scope), body=body
        )
        return await handle(request)

    return claim_then_handle


def _sparing_the_unchanged(handle: RouteHandler) -> RouteHandler:
    async def handle_then_compare(request: Request) -> Response:
        response = await handle(request)
        wanted = request.headers.get("if-none-match")
        # A streamed answer has no body yet: whoever made it compares before opening anything.
        is_whole = response.status_code == HTTPStatus.OK and hasattr(response, "body")
        if wanted is None or not is_whole:
            return response
        etag = response.headers.get("etag")
        if etag is None or is_none_match(wanted, etag):
            return response
        return Response(status_code=304, headers={"ETag": etag}, background=response.background)

    return handle_then_compare
