"""The log's columns as a check reads them, and times that a reader can hold."""

from typing import Final


def held(column: str, kind: str = "timestamptz") -> str:
    """Read a time as one that Python can hold and a hash can take.

    Only after tampering is it another one then, and so it is not what was hashed or signed: a
    finding, and no error that keeps all the rest from being checked.
    """
    return f"least(greatest({column}, {kind} '1970-01-01 00:00Z'), {kind} '2200-01-01 00:00Z')"


# Casts to text are cheaper than the client's own spelling of a UUID.
LOG_COLUMNS: Final = f"""
    l.seq, {held("l.recorded_at")}, l.payload, l.retention_class, {held("l.occurred_at")},
    l.event_id::text, l.tenant_id::text, l.actor_kind, l.actor_id::text, l.session_id::text,
    l.api_key_id::text, l.action, l.resource_kind, l.resource_id, l.outcome, l.reason, l.request_id
"""
