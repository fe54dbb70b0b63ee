"""An event read back from its canonical bytes, checked before it enters the log."""

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, get_args
from uuid import UUID

from maas.audit.domain.chain import leaf_of
from maas.audit.domain.event import VERSION, canonical_address
from maas.audit.domain.retention import RetentionClass, classify
from maas.shared.domain.call import Outcome
from maas.shared.domain.principal import ActorKind

MAX_PAYLOAD_BYTES: Final = 1024 * 1024

_FIELDS: Final = frozenset(
    {
        "v", "id", "occurred_at", "tenant_id", "actor", "session_id", "api_key_id", "action",
        "resource", "outcome", "reason", "changes", "request_id", "commitments",
    }
)  # fmt: skip
_SIDES: Final = frozenset({"before", "after"})
_PERSONAL: Final = ("actor_name", "email", "address", "user_agent")
_PERSONAL_FIELDS: Final = frozenset({*_PERSONAL, "salt"})
_PLAIN: Final = (str, int)
_OUTCOMES: Final = frozenset(get_args(Outcome))
_ACTOR_KINDS: Final = frozenset(get_args(ActorKind))
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)


class MalformedEventError(ValueError):
    """The bytes are no event of a version this code reads."""


# Not frozen: ten thousand a second are made, and a frozen one costs three times as much.
@dataclass(slots=True)
class Record:
    """What the log keeps of an event: its hashed bytes, and columns to find it by.

    Ids other than its own stay text, for the database to read: parsing them here as well would cost
    a fifth of the flush.
    """

    event_id: UUID
    tenant_id: str
    occurred_at: datetime
    actor_kind: str
    actor_id: str | None
    session_id: str | None
    api_key_id: str | None
    action: str
    resource_kind: str | None
    resource_id: str | None
    outcome: str
    reason: str | None
    request_id: str
    duration_ms: int | None
    payload: bytes
    leaf: bytes
    retention_class: RetentionClass
    actor_name: str | None
    email: str | None
    address: str | None
    user_agent: str | None
    salt: bytes


def read_record(*, payload: bytes, personal: bytes, duration_ms: int | None) -> Record:
    """Read an event; values of a wrong kind inside it may still be refused by the database.

    What gets past here stays for ever, so nothing may that a reader or a check would stumble over.

    Raises:
        MalformedEventError: not JSON, not this version, too large, or a field is missing or odd.
    """
    if len(payload) > MAX_PAYLOAD_BYTES or len(personal) > MAX_PAYLOAD_BYTES:
        raise MalformedEventError("the event is too large")
    try:
        hashed, beside = json.loads(payload.decode()), json.loads(personal.decode())
        _check_version(hashed["v"])
        salt = bytes.fromhex(beside["salt"])
        _check_hashed(hashed)
        _check_commitments(hashed["commitments"], beside, salt)
        actor, resource, action = hashed["actor"], hashed["resource"], hashed["action"]
        return Record(
            event_id=_event_id(hashed["id"]),
            tenant_id=hashed["tenant_id"],
            occurred_at=_instant(hashed["occurred_at"]),
            actor_kind=actor["kind"],
            actor_id=actor["id"],
            session_id=hashed["session_id"],
            api_key_id=hashed["api_key_id"],
            action=action,
            resource_kind=resource["kind"],
            resource_id=resource["id"],
            outcome=hashed["outcome"],
            reason=hashed["reason"],
            request_id=hashed["request_id"],
            duration_ms=duration_ms,
            payload=payload,
            leaf=leaf_of(payload),
            retention_class=classify(action),
            actor_name=beside.get("actor_name"),
            email=beside.get("email"),
            address=beside.get("address"),
            user_agent=beside.get("user_agent"),
            salt=salt,
        )
    except MalformedEventError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise MalformedEventError(f"the event cannot be read: {type(exc).__name__}") from exc


def _event_id(text: str) -> UUID:
    event_id = UUID(text)
    if str(event_id) != text:
        raise MalformedEventError("the event's id is spelled in another way")
    return event_id


def _check_version(version: object) -> None:
    if version != VERSION:
        raise MalformedEventError("the event has a version this code does not read")


def _instant(value: str) -> datetime:
    at = datetime.fromisoformat(value)
    if at.tzinfo is None:
        raise MalformedEventError("the event's time has no zone")
    if not _EARLIEST <= at < _LATEST:
        raise MalformedEventError("the event's time is no time of ours")
    return at


def _check_hashed(hashed: Mapping[str, Any]) -> None:
    if hashed.keys() != _FIELDS:
        raise MalformedEventError("the event has other fields than its version has")
    if hashed["outcome"] not in _OUTCOMES or hashed["actor"]["kind"] not in _ACTOR_KINDS:
        raise MalformedEventError("the event has an outcome or an actor of no known kind")
    changes = hashed["changes"]
    if changes.keys() != _SIDES:
        raise MalformedEventError("the event's changes have other sides than before and after")
    for side in changes.values():
        for value in side.values():
            if not (value is None or isinstance(value, _PLAIN) or _is_list_or_digest(value)):
                raise MalformedEventError("the event's changes hold what no change does")


def _is_list_or_digest(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(item, _PLAIN) for item in value.values())
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# Most events come from few addresses, and reading one costs as much as all the rest.
@lru_cache(maxsize=4096)
def _is_canonical(address: str) -> bool:
    return canonical_address(address) == address


def _check_commitments(
    commitments: Mapping[str, str], beside: Mapping[str, Any], salt: bytes
) -> None:
    """See that the event commits to its personal fields, all of them and no others."""
    if not beside.keys() <= _PERSONAL_FIELDS:
        raise MalformedEventError("the event has personal fields of no known kind")
    count = 0
    for name in _PERSONAL:
        value = beside.get(name)
        if value is None:
            continue
        count += 1
        if name == "address" and not _is_canonical(value):
            raise MalformedEventError("the event's address is spelled in another way")
        digest = hmac.digest(salt, f"{name}\0{value}".encode(), "sha256").hex()
        if commitments[name] != digest:
            raise MalformedEventError(f"the event does not commit to its {name}")
    if len(commitments) != count:
        raise MalformedEventError("the event commits to personal fields that it lacks")
