"""The event, format v1: what is hashed, and how it becomes bytes. Frozen by the first release."""

import hashlib
import hmac
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeAlias
from uuid import UUID

from maas.audit.public import ChangeValue
from maas.shared.domain.call import Outcome
from maas.shared.domain.ids import ApiKeyId, EventId, SessionId, TenantId
from maas.shared.domain.principal import ActorKind

VERSION = 1
SALT_BYTES = 32
MAX_CHANGE_CHARS = 2_000
MAX_ACTION_CHARS = 100
MAX_TEXT_CHARS = 256
MAX_REASON_CHARS = 500
MAX_EMAIL_CHARS = 320
MAX_USER_AGENT_CHARS = 512

Json: TypeAlias = "str | int | bool | Sequence[Json] | Mapping[str, Json] | None"

# Made once: `json.dumps` would make one for each call.
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


class NotCanonicalError(TypeError):
    """A change holds a value whose text is not canonical, such as a float: a bug of its writer."""


def canonical(value: Mapping[str, Json] | Sequence[Json]) -> bytes:
    """Spell JSON in exactly one way: sorted keys (by code point), no spaces, UTF-8."""
    return _ENCODER.encode(value).encode()


def clean(text: str, limit: int = MAX_TEXT_CHARS) -> str:
    """Make any string storable: NUL, lone surrogates and what is past the limit go."""
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\x00", "\ufffd")[:limit]


def _clean_or_none(text: str | None, limit: int = MAX_TEXT_CHARS) -> str | None:
    return None if text is None else clean(text, limit)


def bounded(value: object) -> Json:
    """Keep a change's value readable but small: what is long becomes its size and SHA-256.

    Raises:
        NotCanonicalError: it is neither text, whole number, truth value, list of texts nor nothing.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        # Most values are short and plain, and calls have many of them.
        if len(value) <= MAX_CHANGE_CHARS and value.isascii() and "\x00" not in value:
            return value
        text = clean(value, len(value))
        if len(text) <= MAX_CHANGE_CHARS:
            return text
        return {"length": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise NotCanonicalError(f"a change cannot hold {type(value).__name__}")
    items = [clean(item, len(item)) for item in value]
    spelled = canonical(items)
    if len(spelled) <= MAX_CHANGE_CHARS:
        return items
    return {"items": len(items), "sha256": hashlib.sha256(spelled).hexdigest()}


def canonical_address(address: str | None) -> str | None:
    """Spell an IP address in its one way; what is none (a socket's path) is left out."""
    return None if address is None else _canonical_address(address)


@lru_cache(maxsize=4096)
def _canonical_address(address: str) -> str | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(parsed)


def spell_instant(at: datetime) -> str:
    """Spell a time as RFC 3339 in UTC, always with six digits of microseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalFields:
    """What may be erased one day: kept beside the hashed bytes, which hold commitments to it."""

    salt: bytes
    actor_name: str | None = None
    email: str | None = None
    address: str | None = None
    user_agent: str | None = None

    def __post_init__(self) -> None:
        if len(self.salt) != SALT_BYTES:
            message = f"a salt has {SALT_BYTES} bytes"
            raise ValueError(message)
        for name, value in (
            ("actor_name", _clean_or_none(self.actor_name)),
            ("email", _clean_or_none(self.email, MAX_EMAIL_CHARS)),
            ("address", canonical_address(self.address)),
            ("user_agent", _clean_or_none(self.user_agent, MAX_USER_AGENT_CHARS)),
        ):
            object.__setattr__(self, name, value)

    @property
    def values(self) -> dict[str, str]:
        """The fields that are there, by name."""
        fields = {
            "actor_name": self.actor_name,
            "email": self.email,
            "address": self.address,
            "user_agent": self.user_agent,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def commitments(self) -> dict[str, str]:
        """Commit to each field; without the salt nothing can be guessed back from it."""
        return {
            name: hmac.digest(self.salt, f"{name}\0{value}".encode(), "sha256").hex()
            for name, value in self.values.items()
        }

    def to_mapping(self) -> dict[str, str]:
        return {**self.values, "salt": self.salt.hex()}

    def to_json(self) -> str:
        return canonical(self.to_mapping()).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One act: who, what, on what, with which outcome. Texts are cleaned and cut to size."""

    id: EventId
    occurred_at: datetime
    tenant_id: TenantId
    actor_kind: ActorKind
    actor_id: UUID | None
    action: str
    outcome: Outcome
    request_id: str
    session_id: SessionId | None = None
    api_key_id: ApiKeyId | None = None
    resource_kind: str | None = None
    resource_id: str | None = None
    reason: str | None = None
    before: Mapping[str, ChangeValue]
    after: Mapping[str, ChangeValue]
    personal: PersonalFields

    def payload(self) -> bytes:
        """Spell the canonical bytes that are hashed; every field is there, absent ones as null.

        Raises:
            NotCanonicalError: a change holds something other than plain values.
        """
        return canonical(
            {
                "v": VERSION,
                "id": str(self.id),
                "occurred_at": spell_instant(self.occurred_at),
                "tenant_id": str(self.tenant_id),
                "actor": {"kind": self.actor_kind, "id": _text_of(self.actor_id)},
                "session_id": _text_of(self.session_id),
                "api_key_id": _text_of(self.api_key_id),
                "action": clean(self.action, MAX_ACTION_CHARS),
                "resource": {
                    "kind": _clean_or_none(self.resource_kind, MAX_ACTION_CHARS),
                    "id": _clean_or_none(self.resource_id),
                },
                "outcome": self.outcome,
                "reason": _clean_or_none(self.reason, MAX_REASON_CHARS),
                "changes": {"before": _bounded(self.before), "after": _bounded(self.after)},
                "request_id": clean(self.request_id),
                "commitments": self.personal.commitments(),
            }
        )


def _text_of(identifier: UUID | None) -> str | None:
    return None if identifier is None else str(identifier)


def _bounded(values: Mapping[str, ChangeValue]) -> dict[str, Json]:
    return {clean(name): bounded(value) for name, value in values.items()}
