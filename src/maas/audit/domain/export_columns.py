"""An event as a row of a table: its columns, and whether they say what its payload says."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias

from maas.audit.domain.chain import leaf_of
from maas.audit.domain.chain_check import ChainRow
from maas.audit.domain.event import canonical, spell_instant
from maas.audit.domain.fidelity import find_personal_difference
from maas.shared.domain.spreadsheet import harmless

COLUMNS: Final = (
    "seq", "id", "occurred_at", "recorded_at", "actor_kind", "actor_id", "actor_name", "email",
    "action", "resource_kind", "resource_id", "outcome", "reason", "changes", "request_id",
    "session_id", "api_key_id", "address", "user_agent", "duration_ms", "salt", "payload", "leaf",
    "row_hash",
)  # fmt: skip
INSTANTS: Final = frozenset({"occurred_at", "recorded_at"})
NUMBERS: Final = frozenset({"seq", "duration_ms"})

TableRow: TypeAlias = Sequence[Any]
"""The values of `COLUMNS`: whole numbers, texts and nothing; times are texts as in payloads."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# All rows of a batch have one time.
_spell_instant = lru_cache(maxsize=64)(spell_instant)

_PERSONAL: Final = ("actor_name", "email", "address", "user_agent")
_PROVEN: Final = frozenset(
    {*COLUMNS} - {"seq", "recorded_at", "duration_ms", "salt", "leaf", "row_hash", *_PERSONAL}
)
"""Columns that follow from the payload."""


def tabulate(
    row: ChainRow, *, payload: bytes, duration_ms: int | None, personal: Mapping[str, str] | None
) -> TableRow:
    """Spread an event over the columns; what is personal is empty once erased."""
    seq, recorded_at, leaf, row_hash = row
    text, beside = payload.decode(errors="replace"), personal or {}
    hashed = json.loads(text)
    actor, resource = hashed["actor"], hashed["resource"]
    return (
        seq, hashed["id"], hashed["occurred_at"], _spell_instant(recorded_at),
        actor["kind"], actor["id"], beside.get("actor_name"), beside.get("email"),
        hashed["action"], resource["kind"], resource["id"], hashed["outcome"], hashed["reason"],
        canonical(hashed["changes"]).decode(errors="replace"), hashed["request_id"],
        hashed["session_id"], hashed["api_key_id"], beside.get("address"),
        beside.get("user_agent"), duration_ms, beside.get("salt"), text, leaf.hex(),
        row_hash.hex(),
    )  # fmt: skip


def find_row_fault(values: Mapping[str, str | None], *, is_guarded: bool) -> str | None:
    """Say which column is not what the payload says; times are as RFC 3339 with microseconds.

    `values` are texts by column. An empty text counts as nothing, for CSV knows no difference;
    `is_guarded` is for texts that were made harmless to spreadsheets.
    """
    try:
        said = {name: value or None for name, value in values.items()}
        return _find_row_fault(said, is_guarded=is_guarded)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "its payload is no event"


def _find_row_fault(values: Mapping[str, str | None], *, is_guarded: bool) -> str | None:
    payload = (values["payload"] or "").encode()
    leaf = leaf_of(payload)
    if leaf.hex() != values["leaf"]:
        return "its payload is not what the leaf was made of"
    hashed = json.loads(payload)
    row = (0, _EPOCH, leaf, b"")
    expected = tabulate(row, payload=payload, duration_ms=None, personal=None)
    for name, value in zip(COLUMNS, expected, strict=True):
        if name in _PROVEN:
            text = value or ""
            if (harmless(text) if is_guarded else text) != (values[name] or ""):
                return f"its column {name} is not what the payload says"
    return _find_personal_fault(values, hashed["commitments"], is_guarded=is_guarded)


def _find_personal_fault(
    values: Mapping[str, str | None], commitments: Mapping[str, str], *, is_guarded: bool
) -> str | None:
    salt = values["salt"]
    if salt is None:
        is_bare = not any(values[name] for name in _PERSONAL)
        return None if is_bare else "it has personal fields, and no salt to check them with"
    for name in _PERSONAL:
        committed = {name: commitments[name]} if name in commitments else {}
        faults = [
            find_personal_difference({name: each, "salt": bytes.fromhex(salt)}, committed)
            for each in _meant(values[name], is_guarded=is_guarded)
        ]
        if all(faults):
            return faults[0]
    return None


def _meant(value: str | None, *, is_guarded: bool) -> Sequence[str | None]:
    """List what a cell may stand for: nothing or an empty text, an apostrophe or the guard's."""
    if value is None:
        return (None, "")
    plain = value.removeprefix("'")
    return (value, plain) if is_guarded and harmless(plain) == value else (value,)
