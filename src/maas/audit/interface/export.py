"""The tenant's trail as a stream of lines that can be checked anywhere."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from starlette.responses import StreamingResponse

from maas.audit.interface.dependencies import Exports
from maas.audit.public import audited
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

router = APIRouter(prefix="/audit/logs", tags=["audit"], route_class=StrictRoute)

MEDIA_TYPE = "application/x-ndjson"

_EXPORTED = {
    "schema": {"type": "string"},
    "examples": {
        "export": {
            "value": (
                '{"type":"header","v":1,"tenant_id":"01935d2e-0000-7000-8000-000000000001",'
                '"seq_to":4715,"exported_at":"2026-11-21T08:00:02.000000Z"}\n'
            )
        }
    },
}


@router.get(
    "/export",
    dependencies=[requires("audit:export")],
    summary="Export the tenant's events, with proof",
    description=(
        "One JSON object a line, oldest first: a header, the public keys, the signed checkpoints, "
        "each of the tenant's events with its payload and personal fields, of every other event "
        "only its place and hashes, and a last line that counts and hashes all of it. "
        "`maas audit verify --export FILE --public-key FILE` checks it without this server. An "
        "export that was cut off lacks the last line."
    ),
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: _EXPORTED}}},
)
@audited("audit.exported")
async def export_logs(
    exports: Exports,
    caller: Caller,
    format: Annotated[Literal["ndjson"], Query()] = "ndjson",  # noqa: A002, ARG001  the parameter's name; there is one so far
) -> Response:
    chunks = exports.export(caller.tenant_id)
    # The first lines are read before the status is sent, so that an outage is a problem document.
    first = await anext(chunks)
    return StreamingResponse(
        _joined(first, chunks),
        media_type=MEDIA_TYPE,
        headers={"Content-Disposition": 'attachment; filename="audit.ndjson"'},
    )


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
