"""Why an event is not in the log: not yet, or not any more."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from maas.audit.application.proofs import NOT_FLUSHED
from maas.audit.application.queries import AuditEventNotFoundError

_DROPPED: Final = """
    SELECT retention_class, n FROM audit_tombstones
    WHERE period = date_trunc('month', $1::timestamptz AT TIME ZONE 'UTC')::date ORDER BY n
"""
_VERSION_WITH_A_TIME: Final = 7
_LATEST_MILLISECONDS: Final = 4_102_444_800_000


async def explain_absence(connection: Any, event_id: UUID) -> AuditEventNotFoundError:
    """Tell that an event is not there, and what was dropped of the month its id was made in.

    Whether there ever was one of this id, nobody can tell then.
    """
    milliseconds = event_id.int >> 80
    if event_id.version != _VERSION_WITH_A_TIME or milliseconds >= _LATEST_MILLISECONDS:
        return AuditEventNotFoundError(NOT_FLUSHED)
    made_at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    rows = await connection.fetch(_DROPPED, made_at)
    if not rows:
        return AuditEventNotFoundError(NOT_FLUSHED)
    classes = ", ".join(f"{row['retention_class']} (tombstone {row['n']})" for row in rows)
    return AuditEventNotFoundError(
        f"No such event is in the log. Of {made_at:%Y-%m}, when an event of this id was made, "
        f"events of these classes were dropped as the retention policy says: {classes}."
    )
