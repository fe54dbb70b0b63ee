"""People as CSV, a page at a time, safe to open in a spreadsheet."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence

from fastapi import Response
from starlette.responses import StreamingResponse

from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Position
from maas.shared.domain.spreadsheet import harmless
from maas.user.application.admin_ports import DirectoryQueries, MemberDetails, MemberFilter

ROWS_AT_ONCE = 1_000
COLUMNS = (
    "id", "username", "email", "display_name", "status", "status_reason", "roles", "joined_at",
)  # fmt: skip

EXPORTED = {
    "schema": {"type": "string"},
    "examples": {
        "people": {
            "value": (
                '"id","username","email","display_name","status","status_reason","roles",'
                '"joined_at"\r\n"01935d2e-0000-7000-8000-000000000003","grace",'
                '"grace@example.com","Grace Hopper","active","","developer",'
                '"2026-11-21T08:00:00Z"\r\n'
            )
        }
    },
}
"""The export in OpenAPI."""


async def answer_export(
    directory: DirectoryQueries, tenant_id: TenantId, wanted: MemberFilter
) -> Response:
    """Stream every member that matches, newest first; no transaction is held meanwhile.

    The first rows are read before the status is sent, so that an outage is a problem document.
    """
    first = await directory.read_members(tenant_id, wanted, after=None, limit=ROWS_AT_ONCE)
    return StreamingResponse(
        _pages(directory, tenant_id, wanted, first),
        media_type="text/csv; charset=utf-8; header=present",
        headers={"Content-Disposition": 'attachment; filename="users.csv"'},
    )


async def _pages(
    directory: DirectoryQueries,
    tenant_id: TenantId,
    wanted: MemberFilter,
    members: Sequence[MemberDetails],
) -> AsyncIterator[bytes]:
    yield _spell([COLUMNS])
    while members:
        yield _spell(_row(member) for member in members)
        if len(members) < ROWS_AT_ONCE:
            return
        last = Position(at=members[-1].created_at, id=members[-1].id)
        members = await directory.read_members(tenant_id, wanted, after=last, limit=ROWS_AT_ONCE)


def _row(member: MemberDetails) -> Sequence[str]:
    values = (
        str(member.id),
        member.username,
        member.email,
        member.display_name or "",
        member.status,
        member.status_reason or "",
        " ".join(member.roles),
        member.created_at.isoformat().replace("+00:00", "Z"),
    )
    return [harmless(value) for value in values]


def _spell(rows: Iterable[Sequence[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    return buffer.getvalue().encode()
