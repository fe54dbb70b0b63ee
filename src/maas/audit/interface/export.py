"""The tenant's trail as a file: lines that prove themselves, or tables to work with."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Final, cast
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Query, Response
from starlette.responses import StreamingResponse
from starlette.types import Send
from typing_extensions import override

from maas.audit.application.export_cursor import MAX_CURSOR_CHARS, ExportCursorError
from maas.audit.application.export_ports import ExportRequest
from maas.audit.application.export_slots import ExportsBusyError, TooManyExportsError
from maas.audit.application.export_tables import ParquetUnavailableError
from maas.audit.application.exports import ExportFormat, ExportOptionsError, ExportOrder
from maas.audit.application.queries import EventFilter
from maas.audit.domain.export import Content
from maas.audit.interface.dependencies import Exports
from maas.audit.public import audited
from maas.shared.domain.call import Outcome
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import MAX_INT, Instant, Line

router = APIRouter(prefix="/audit/logs", tags=["audit"], route_class=StrictRoute)

PART_BYTES: Final = 64 * 1024
PATIENCE_SECONDS: Final = 60.0
"""A client who takes not even a part in that time has left; the rest is had with the cursor."""

UPTO_HEADER: Final = "X-Audit-Upto-Seq"

_MEDIA_TYPES: Final[dict[ExportFormat, str]] = {
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}

_LINES: Final = {
    "schema": {"type": "string"},
    "examples": {
        "export": {
            "value": (
                '{"type":"header","v":1,"tenant_id":"01935d2e-0000-7000-8000-000000000001",'
                '"content":"full","since":"2026-03-01T00:00:00.000000Z",'
                '"until":"2026-04-01T00:00:00.000000Z","filter":{},"upto_seq":null,"start":{"seq":4700,"n":812,'
                '"row_hash":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",'
                '"checkpoint_hash":'
                '"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"},'
                '"seq_to":9715,"exported_at":"2026-11-21T08:00:02.000000Z"}\n'
            )
        }
    },
}
_CSV: Final = {
    "schema": {"type": "string"},
    "examples": {"export": {"value": "seq,id,occurred_at,recorded_at,actor_kind\r\n"}},
}
_PARQUET: Final = {
    "schema": {"type": "string", "format": "binary"},
    "examples": {"export": {"summary": "The columns of the CSV", "value": "PAR1"}},
}
_EXPORTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {
            "application/x-ndjson": _LINES,
            "text/csv": _CSV,
            "application/vnd.apache.parquet": _PARQUET,
        },
        "headers": {
            UPTO_HEADER: {
                "description": "The last row of the log that was looked at.",
                "schema": {"type": "integer"},
            }
        },
    }
}

_DESCRIPTION: Final = """
The tenant's events that occurred from `since` on and before `until`, in the order of the log.

**NDJSON** proves itself: one JSON object a line; a header, the public keys, the signed checkpoints,
each wanted event with its payload and personal fields, of every other event only its place and
hashes, and a last line that counts and hashes all of it and is signed.
`maas audit verify --export FILE --public-key KEY` checks it without this server; with `--tenant`,
`--since`, `--until` and `--unfiltered` also that it is of what was asked for. The stretch of the
log goes from 5 minutes before `since` to 1 hour after `until`, widened to whole checkpoints: what
was recorded later than that, after a long outage, takes a later `until`. With filters, events that
do not match are there as hashes only, and the signed last line names the filters.

**CSV and Parquet** have a row an event; `payload` is the exact text that was hashed. With an export
of `content=proof`, filters and `upto_seq` alike, they are checked too:
`maas audit verify --export FILE.csv --proof PROOF.ndjson --public-key KEY`. In CSV a text that a
spreadsheet would take for a formula begins with an apostrophe; `payload` never does.

**Going on after a cut.** NDJSON: cut the file behind its last `mark` line, send that line's
`cursor` alone, and append what comes: the file is what it would have been. `maas audit resume FILE`
cuts it and prints the cursor, good for 7 days. CSV: cut it behind the last whole row, send the same
options with `upto_seq` (from the header `X-Audit-Upto-Seq`) and `after_seq` (of that row), and
append. Parquet: a file that was cut off cannot be read; ask with `upto_seq` in pieces, and send
`after_seq` for the next file of the data set.
"""

_Text = Annotated[Line, Query(min_length=1, max_length=256)]
_Seq = Annotated[int, Query(ge=1, le=MAX_INT)]

_log = structlog.get_logger("maas.audit")


class ExportResponse(StreamingResponse):
    """Sends in small parts, and ends what makes them however the sending ends."""

    @override
    async def stream_response(self, send: Send) -> None:
        async with aclosing(cast("AsyncGenerator[bytes]", self.body_iterator)) as chunks:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            try:
                async for chunk in chunks:
                    await _send_parts(chunk, send)
            except TimeoutError:
                # The answer stays without an end, so the client knows that something is missing.
                _log.warning("export_abandoned", patience_seconds=PATIENCE_SECONDS)
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_parts(chunk: bytes, send: Send) -> None:
    for begin in range(0, len(chunk), PART_BYTES):
        part = chunk[begin : begin + PART_BYTES]
        async with asyncio.timeout(PATIENCE_SECONDS):
            await send({"type": "http.response.body", "body": part, "more_body": True})


async def _wanted(
    actor_id: UUID | None = None,
    action: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=100,
            pattern=r"^[a-z0-9_.-]*\*?$",
            description="An action, or the beginning of one and a `*`.",
            examples=["account.created", "auth.*"],
        ),
    ] = None,
    resource_kind: _Text | None = None,
    resource_id: _Text | None = None,
    outcome: Outcome | None = None,
    request_id: _Text | None = None,
    since: Annotated[Instant | None, Query(description="Occurred then or later.")] = None,
    until: Annotated[Instant | None, Query(description="Occurred before then.")] = None,
) -> EventFilter:
    return EventFilter(
        actor_id=actor_id,
        action=action,
        resource_kind=resource_kind,
        resource_id=resource_id,
        outcome=outcome,
        request_id=request_id,
        since=since,
        until=until,
    )


async def _order(
    caller: Caller,
    wanted: Annotated[EventFilter, Depends(_wanted)],
    format: ExportFormat = "ndjson",  # noqa: A002  the parameter's name
    content: Annotated[
        Content, Query(description="`proof` leaves the events' own texts out.")
    ] = "full",
    upto_seq: Annotated[_Seq | None, Query(description="The last row of the log to look at.")] = (
        None
    ),
    after_seq: Annotated[
        _Seq | None, Query(description="CSV and Parquet: go on after this row.")
    ] = None,
    cursor: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=MAX_CURSOR_CHARS,
            description="NDJSON: go on behind the mark with this cursor.",
        ),
    ] = None,
) -> ExportOrder:
    request = ExportRequest(
        tenant_id=caller.tenant_id, wanted=wanted, content=content, upto_seq=upto_seq
    )
    return ExportOrder(request=request, format=format, cursor=cursor, after_seq=after_seq)


@may_refuse(ExportsBusyError, TooManyExportsError)
async def _hold_slot(caller: Caller, exports: Exports) -> AsyncIterator[None]:
    """Hold a place until the answer is sent, or the client has left."""
    with exports.slots.take(caller.tenant_id):
        yield


@router.get(
    "/export",
    dependencies=[requires("audit:export"), Depends(_hold_slot)],
    summary="Export the tenant's events as a file",
    description=_DESCRIPTION,
    response_class=Response,
    responses=_EXPORTED,
)
@audited("audit.exported")
@may_refuse(ExportOptionsError, ExportCursorError, ParquetUnavailableError)
async def export_logs(exports: Exports, order: Annotated[ExportOrder, Depends(_order)]) -> Response:
    opened = await exports.open(order)
    # The first chunk is read before the status is sent, so that an outage is a problem document.
    first = await anext(opened.chunks, b"")
    return ExportResponse(
        _joined(first, opened.chunks),
        media_type=_MEDIA_TYPES[order.format],
        headers={
            "Content-Disposition": f'attachment; filename="audit.{order.format}"',
            UPTO_HEADER: str(opened.seq_to),
        },
    )


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async with aclosing(cast("AsyncGenerator[bytes]", rest)) as chunks:
        yield first
        async for chunk in chunks:
            yield chunk
