"""The trail on the wire."""

from collections.abc import Mapping
from uuid import UUID

from pydantic import ConfigDict, Field, JsonValue
from pydantic.config import JsonDict

from maas.shared.interface.types import Instant, ReadModel

_EXAMPLE: JsonDict = {
    "id": "01935d2e-7a1c-7c3e-9d39-3b1a2f4c5d6e",
    "seq": 4711,
    "occurred_at": "2026-11-21T08:00:00.123456Z",
    "recorded_at": "2026-11-21T08:00:00.904112Z",
    "actor": {"kind": "account", "id": "01935d2e-0000-7000-8000-000000000002", "name": "mei"},
    "action": "role.assigned",
    "resource": {"kind": "account", "id": "01935d2e-0000-7000-8000-000000000003"},
    "outcome": "success",
    "reason": None,
    "changes": {"before": {"roles": ["user"]}, "after": {"roles": ["developer"]}},
    "email": None,
    "address": "192.0.2.7",
    "user_agent": "curl/8.9",
    "request_id": "01935d2e7a1b7c3e9d393b1a2f4c5d6e",
    "session_id": "01935d2e-0000-7000-8000-000000000004",
    "api_key_id": None,
    "duration_ms": 12,
    "leaf": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    "row_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}


class ActorRead(ReadModel):
    kind: str
    id: UUID | None
    name: str | None


class ResourceRead(ReadModel):
    kind: str
    id: str | None


class ChangesRead(ReadModel):
    before: Mapping[str, JsonValue]
    after: Mapping[str, JsonValue]


class AuditEventRead(ReadModel):
    """One event of the log, with its place in the hash chain."""

    model_config = ConfigDict(
        from_attributes=True, frozen=True, json_schema_extra={"examples": [_EXAMPLE]}
    )

    id: UUID
    seq: int
    occurred_at: Instant
    recorded_at: Instant
    actor: ActorRead
    action: str
    resource: ResourceRead | None
    outcome: str
    reason: str | None
    changes: ChangesRead
    email: str | None
    address: str | None
    user_agent: str | None
    request_id: str
    session_id: UUID | None
    api_key_id: UUID | None
    duration_ms: int | None
    leaf: str
    row_hash: str


class EventNeighboursRead(ReadModel):
    """An event among others, each list in the order of time."""

    model_config = ConfigDict(
        from_attributes=True,
        frozen=True,
        json_schema_extra={
            "examples": [{"event": _EXAMPLE, "request": [], "before": [], "after": []}]
        },
    )

    event: AuditEventRead
    request: list[AuditEventRead] = Field(description="The others of the same request.")
    before: list[AuditEventRead] = Field(description="Of the same session, else the same actor.")
    after: list[AuditEventRead] = Field(description="Likewise.")
