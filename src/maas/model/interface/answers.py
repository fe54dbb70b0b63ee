"""Answers the registry's routes share: created resources, and refusals for the documentation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from pydantic import BaseModel

from maas.shared.domain.idempotency import Answer
from maas.shared.interface.etags import etag_of
from maas.shared.interface.idempotency import created
from maas.shared.interface.problems import PROBLEM_MEDIA_TYPE

API = "/api/v1"
BYTES_STAY = (
    "The files can no longer be read, but their bytes stay in the artifact store: nothing frees "
    "its room yet."
)

_REFUSALS = {
    404: "Not there, deleted, or another tenant's.",
    408: "The body came too slowly.",
    409: "The name is taken, or the state does not allow it; `code` says which.",
    412: "It changed since the ETag in `If-Match` was read.",
    413: "More bytes than a file may have.",
    415: "An encoded body, or a pickle.",
    416: "The file has no such bytes.",
    422: "A value is wrong in itself, or the bytes are not those announced.",
    429: "Too many of the caller's files are on their way; `Retry-After` tells when to try again.",
    503: "The store or the database does not answer, or gave damaged bytes.",
    507: "The store is full.",
}


class Revised(Protocol):
    @property
    def revision(self) -> int: ...


def created_with_etag(
    model: type[BaseModel], *, location: Callable[[Any], str]
) -> Callable[[Any], Answer]:
    """Render a created resource as its route does, for repeats under one Idempotency-Key."""
    render = created(model, location=location)

    def with_etag(result: Revised) -> Answer:
        answer = render(result)
        return replace(answer, headers={**answer.headers, "ETag": etag_of(result.revision)})

    return with_etag


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the problems a route may answer with."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": _REFUSALS[status],
            "content": {PROBLEM_MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }
