"""Answers the registry's routes share: created resources, and what is said of their bytes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from pydantic import BaseModel

from maas.shared.domain.idempotency import Answer
from maas.shared.interface.etags import etag_of
from maas.shared.interface.idempotency import created

API = "/api/v1"
BYTES_STAY = (
    "The files can no longer be read. Bytes that no other file has are freed later, an hour after "
    "this unless set otherwise: whoever downloads them now has so long."
)


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
