"""The events of several values of one column, in the order of the list.

Each value is a stream of its own, read along an index only as far as the page needs; row-level
security and the partitions leave such an index usable. One list is made of the streams.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from maas.audit.application.queries import EventFilter, Order
from maas.audit.infrastructure.conditions import (
    DIRECTIONS,
    Arguments,
    Stretch,
    in_columns,
    within,
)
from maas.audit.infrastructure.words import Words
from maas.shared.domain.ids import TenantId

_ALONE: Final = frozenset(
    {
        frozenset[str](),
        frozenset({"actor_id"}),
        frozenset({"actor_id", "action"}),
        frozenset({"actor_id", "failure"}),
        frozenset({"action"}),
        frozenset({"action", "failure"}),
        frozenset({"failure"}),
        frozenset({"resource_kind", "resource_id"}),
        frozenset({"request_id"}),
        frozenset({"session_id"}),
        frozenset({"api_key_id"}),
    }
)
"""Filters that one index answers, or one for each of several actions."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Values of a column of the log (`l`) or the personal fields (`p`), and what else is asked."""

    table: str
    column: str
    type: str
    values: Sequence[object]
    wanted: EventFilter


def find_streams(wanted: EventFilter, words: Words) -> list[Stream] | None:
    """Split what is wanted into streams that an index answers; none where there is no such index.

    A list with nothing in it says that nothing has what is wanted.
    """
    asked = _asked(wanted)
    if asked == {"q"}:
        return _streams_of_text(wanted, words) if words.has_all else None
    stream = None
    if asked == {"address"} and words.addresses is not None:
        stream = Stream("p", "address", "inet", words.addresses, replace(wanted, address=None))
    elif asked == {"resource_kind"}:
        stream = Stream("l", "action", "text", words.actions or (), wanted)
    elif asked == {"resource_id"}:
        stream = Stream("l", "resource_kind", "text", words.kinds or (), wanted)
    elif words.actions is not None and asked in _ALONE:
        stream = Stream("l", "action", "text", words.actions, replace(wanted, action=None))
    if stream is None:
        return None
    return [stream] if stream.values else []


def is_alone(wanted: EventFilter) -> bool:
    """Tell whether one index answers all that is wanted."""
    return _asked(wanted) in _ALONE


def _asked(wanted: EventFilter) -> frozenset[str]:
    asked = {
        name
        for name in (
            "actor_id", "action", "resource_kind", "resource_id", "address", "request_id",
            "session_id", "api_key_id", "q",
        )
        if getattr(wanted, name) is not None
    }  # fmt: skip
    if wanted.action == "*":
        asked.remove("action")
    if wanted.outcome is not None:
        asked.add("success" if wanted.outcome == "success" else "failure")
    return frozenset(asked)


def _streams_of_text(wanted: EventFilter, words: Words) -> list[Stream]:
    rest, found = replace(wanted, q=None), words.matching
    streams = (
        Stream("l", "action", "text", found.get("action", ()), rest),
        Stream("l", "reason", "text", found.get("reason", ()), rest),
        Stream("p", "actor_name", "text", found.get("name", ()), rest),
        Stream("p", "email", "text", found.get("email", ()), rest),
    )
    return [stream for stream in streams if stream.values]


def keys_of(
    tenant_id: TenantId,
    streams: Sequence[Stream],
    stretch: Stretch,
    order: Order,
    *,
    limit: int,
    arguments: Arguments,
) -> str:
    """Spell the query of the first keys (`occurred_at, event_id`) of all streams together."""
    ordered = "occurred_at {0}, event_id {0}".format(DIRECTIONS[order])
    parts = []
    for stream in streams:
        alias = stream.table
        if alias == "l":
            conditions = in_columns(tenant_id, stream.wanted, arguments)
        else:
            conditions = [arguments.put("p.tenant_id = {}", tenant_id)]
        conditions += [
            f"{alias}.{stream.column} = v.v",
            *within(alias, stretch, order, arguments),
        ]
        values = arguments.put(f"{{}}::{stream.type}[]", stream.values)
        table = "audit_log" if alias == "l" else "audit_personal"
        parts.append(
            f"SELECT k.occurred_at, k.event_id FROM unnest({values}) AS v (v) CROSS JOIN LATERAL ("  # noqa: S608  fixed words, no input
            f"SELECT occurred_at, event_id FROM {table} AS {alias}"
            f" WHERE {' AND '.join(conditions)} ORDER BY {ordered} LIMIT {limit}) AS k"
        )
    return f"{' UNION '.join(parts)} ORDER BY {ordered} LIMIT {limit}"
