"""Idempotency-Key at the edge: which routes honour it, and how they will answer a repeat."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ParamSpec, Protocol, TypeVar

from fastapi import Request
from pydantic import BaseModel

from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.idempotency import Answer, IdempotencyClaim
from maas.shared.interface.etags import etag_of

HEADER = "Idempotency-Key"
RENDER_ATTRIBUTE = "__idempotent_render__"
"""Where a route function carries the way it renders the result of its use case."""

_KEY = re.compile(r"[\x21-\x7e]{1,255}")

P = ParamSpec("P")
R = TypeVar("R")
Render = Callable[[Any], Answer]


class InvalidIdempotencyKeyError(InvalidInputError):
    code = "invalid-idempotency-key"
    title = "The Idempotency-Key cannot be used"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, loc=("header", HEADER))


def idempotent(render: Render) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a POST that creates honour `Idempotency-Key`.

    `render` turns what the use case hands to `commit(result)` into the very answer the route gives;
    `created` makes one for the usual case. It only marks the function, so the order beside
    `@audited` does not matter; the route class must be a `StrictRoute`.
    """

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        setattr(function, RENDER_ATTRIBUTE, render)
        return function

    return mark


def created(model: type[BaseModel], *, location: Callable[[Any], str], status: int = 201) -> Render:
    """Render a result as a created resource: its read model, `Location`, and `ETag` if it has one.

    `location` makes the path from the result; a result with a `version` gets an ETag.
    """

    def render(result: Any) -> Answer:
        headers = {"Location": location(result), "Content-Type": "application/json"}
        version = getattr(result, "version", None)
        if isinstance(version, int):
            headers["ETag"] = etag_of(version)
        body = model.model_validate(result, from_attributes=True).model_dump_json(by_alias=True)
        return Answer(status=status, headers=headers, body=body.encode())

    return render


class Revised(Protocol):
    @property
    def revision(self) -> int: ...


def created_with_etag(model: type[BaseModel], *, location: Callable[[Any], str]) -> Render:
    """Render a created resource as `created` does, with the ETag of its revision."""
    render = created(model, location=location)

    def with_etag(result: Revised) -> Answer:
        answer = render(result)
        return replace(answer, headers={**answer.headers, "ETag": etag_of(result.revision)})

    return with_etag


def read_key(request: Request) -> str | None:
    """Read the key a request carries.

    Raises:
        InvalidIdempotencyKeyError: it is empty, too long, not visible ASCII, or sent twice.
    """
    keys = request.headers.getlist(HEADER)
    if not keys:
        return None
    if len(keys) > 1:
        raise InvalidIdempotencyKeyError("Send the header once.")
    if _KEY.fullmatch(keys[0]) is None:
        raise InvalidIdempotencyKeyError("Use 1 to 255 visible ASCII characters, a UUID say.")
    return keys[0]


def claim_of(
    request: Request, *, render: Render, route: str, body: bytes
) -> IdempotencyClaim | None:
    """Read what a request claims with its key, if it carries one.

    Raises:
        InvalidIdempotencyKeyError: as `read_key` says.
    """
    if (key := read_key(request)) is None:
        return None
    scope = request.scope
    target = b"%b %b?%b" % (scope["method"].encode(), scope["raw_path"], scope["query_string"])
    return IdempotencyClaim(
        key=key,
        route=route,
        request_hash=hashlib.sha256(target + b"\x00" + body).digest(),
        render=render,
    )
