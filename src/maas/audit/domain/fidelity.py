"""Whether the columns beside an event's hashed bytes say what those bytes say."""

import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from maas.audit.domain.event import canonical_address
from maas.audit.domain.retention import classify

LogRow: TypeAlias = Sequence[Any]
"""The columns of `COLUMNS`, then those of `PERSONAL`, ids as text; null where those are gone.

Last of all, whether somebody asked for the actor's personal fields to be erased.
"""

COLUMNS: Final = (
    "seq", "recorded_at", "payload", "retention_class", "occurred_at", "event_id", "tenant_id",
    "actor_kind", "actor_id", "session_id", "api_key_id", "action", "resource_kind", "resource_id",
    "outcome", "reason", "request_id",
)  # fmt: skip
PERSONAL: Final = (
    "event_id", "tenant_id", "salt", "actor_name", "email", "address", "user_agent",
)  # fmt: skip

_COMPARED: Final = COLUMNS[5:]
_FIRST_COMPARED: Final = 5
_FIRST_PERSONAL: Final = len(COLUMNS)
_COMMITTED: Final = PERSONAL[3:]
_IDS: Final = frozenset({"event_id", "tenant_id", "actor_id", "session_id", "api_key_id"})


def is_erased(row: LogRow) -> bool:
    """Tell whether the personal fields of an event are gone."""
    return row[_FIRST_PERSONAL] is None


def find_difference(row: LogRow, *, is_dropping: bool = False) -> str | None:
    """Say what differs; a row may lack its personal fields where they were to be erased.

    They are the first to go of a row that is to be dropped.
    """
    try:
        return _find_difference(row, is_dropping=is_dropping)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "its payload is no event"


def _find_difference(row: LogRow, *, is_dropping: bool) -> str | None:
    hashed: dict[str, Any] = json.loads(row[2])
    actor, resource = hashed["actor"], hashed["resource"]
    said = (
        hashed["id"], hashed["tenant_id"], actor["kind"], actor["id"], hashed["session_id"],
        hashed["api_key_id"], hashed["action"], resource["kind"], resource["id"],
        hashed["outcome"], hashed["reason"], hashed["request_id"],
    )  # fmt: skip
    kept = row[_FIRST_COMPARED:_FIRST_PERSONAL]
    if kept != said:
        for name, before, now in zip(_COMPARED, said, kept, strict=True):
            if before != now and not (name in _IDS and _is_same_id(before, now)):
                return _spell(name)
    if row[4] != datetime.fromisoformat(hashed["occurred_at"]):
        return _spell("occurred_at")
    if row[3] != classify(hashed["action"]):
        return _spell("retention_class")
    if is_erased(row):
        is_meant = is_dropping or row[-1]
        return None if is_meant else "its personal fields are gone, and nobody asked for that"
    return _find_personal(row, tenant_id=hashed["tenant_id"], commitments=hashed["commitments"])


def _find_personal(row: LogRow, *, tenant_id: str, commitments: Mapping[str, str]) -> str | None:
    _, kept_tenant, salt, *values = row[_FIRST_PERSONAL:-1]
    if kept_tenant != tenant_id and not _is_same_id(kept_tenant, tenant_id):
        return "its personal fields are another tenant's"
    personal = dict(zip(_COMMITTED, values, strict=True), salt=salt)
    return find_personal_difference(personal, commitments)


def find_personal_difference(
    personal: Mapping[str, Any], commitments: Mapping[str, str]
) -> str | None:
    """Say which personal field is not what the event commits to; `salt` is among them, raw."""
    salt = personal["salt"]
    for name in _COMMITTED:
        value, commitment = personal.get(name), commitments.get(name)
        if value is None and commitment is None:
            continue
        if value is None or commitment is None or not _commits(salt, name, value, commitment):
            return f"its personal field {name} is not what the event commits to"
    return None


def _commits(salt: bytes, name: str, value: str, commitment: str) -> bool:
    if hmac.digest(salt, f"{name}\0{value}".encode(), "sha256").hex() == commitment:
        return True
    # PostgreSQL may spell an address in another way.
    spelled = canonical_address(value) if name == "address" else None
    return spelled not in (None, value) and _commits(salt, name, str(spelled), commitment)


def _is_same_id(one: object, other: object) -> bool:
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    return UUID(one) == UUID(other)


def _spell(name: str) -> str:
    return f"its column {name} is not what the event says"
