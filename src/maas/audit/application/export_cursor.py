"""The cursor in an export's marks: where a download that was cut off goes on.

It holds all that the rest of the file follows from, so that the rest is what it would have been.
Nothing is kept here meanwhile. It is signed, for whoever could make one could have the last line
signed over another beginning.
"""

import base64
import hmac
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from maas.audit.application.export_ports import StatementSigner
from maas.audit.domain.checkpoint import MalformedCheckpointError, read_hex
from maas.audit.domain.event import canonical
from maas.audit.domain.export import Counts, Header, read_counts, read_header
from maas.audit.domain.merkle import HASH_BYTES
from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.ids import TenantId

LIFETIME: Final = timedelta(days=7)
MAX_CURSOR_CHARS: Final = 6_000

_PURPOSE: Final = b"maas.audit.export-cursor\n"


class ExportCursorError(InvalidInputError):
    code = "export-cursor-invalid"
    title = "The export cannot be continued with this cursor"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, loc=("query", "cursor"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCursor:
    """Behind which row and checkpoint to go on, and what went before."""

    header: Header
    after: int
    after_n: int
    counts: Counts
    digest: bytes


def spell_cursor(cursor: ExportCursor, signer: StatementSigner) -> str:
    text = _to_base64(
        canonical(
            {
                "header": cursor.header.to_mapping(),
                "after": cursor.after,
                "after_n": cursor.after_n,
                "counts": cursor.counts.to_mapping(),
                "digest": cursor.digest.hex(),
            }
        )
    )
    return f"{text}.{_signature(text, signer)}"


def read_cursor(
    cursor: str, *, tenant_id: TenantId, signer: StatementSigner | None, now: datetime
) -> ExportCursor:
    """Read a cursor of this tenant.

    Raises:
        ExportCursorError: it was changed, is another tenant's, or too old.
    """
    text, _, signature = cursor.partition(".")
    is_ours = signer is not None and hmac.compare_digest(
        signature.encode(errors="replace"), _signature(text, signer).encode()
    )
    if not is_ours:
        raise ExportCursorError("Use the cursor of a mark as it is, or start the export anew.")
    try:
        fields = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        read = ExportCursor(
            header=read_header(fields["header"]),
            after=fields["after"],
            after_n=fields["after_n"],
            counts=read_counts(fields["counts"]),
            digest=read_hex(fields, "digest", HASH_BYTES),
        )
    except (ValueError, TypeError, KeyError, AttributeError, MalformedCheckpointError) as exc:
        message = "The cursor is of another version: start the export anew."
        raise ExportCursorError(message) from exc
    if read.header.tenant_id != str(tenant_id):
        raise ExportCursorError("The cursor is of another tenant's export.")
    if now > read.header.exported_at + LIFETIME:
        message = f"The export is older than {LIFETIME.days} days: start it anew."
        raise ExportCursorError(message)
    return read


def _signature(text: str, signer: StatementSigner) -> str:
    return _to_base64(signer.sign(_PURPOSE + text.encode(errors="replace")))


def _to_base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")
