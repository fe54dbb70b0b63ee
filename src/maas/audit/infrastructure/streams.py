"""The events of several values of one column, in the order of the list.

Each value is a stream of its own, read along an index only as far as the page needs; row-level
security and the partitions leave such an index usable. One list is made of the streams.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from maas.audit.application.queries import EventFilter, Order
from maas.audit.infrastructure.conditions import (
    COMES_AFTER,
    DIRECTIONS,
    TEXT_COLUMNS,
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


_PLACE: Final = ", row_number() OVER (PARTITION BY v.v ORDER BY {key}) AS place"
_BACK: Final[dict[Order, Order]] = {"newest": "oldest", "oldest": "newest"}


@dataclass(frozen=True, slots=True)
class Stream:
    """Values of a column of the log (`l`) or the personal fields (`p`), and what else is asked."""

    table: str
    column: str
    type: str
    values: Sequence[object]
    wanted: EventFilter

    @property
    def is_ordered_by_value(self) -> bool:
        """Whether the index has the value right before the time."""
        return self.table == "l" and self.column in {"action", "reason"}


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
    if wanted.outcome is not None:
        asked.add("success" if wanted.outcome == "success" else "failure")
    return frozenset(asked)


def _streams_of_text(wanted: EventFilter, words: Words) -> list[Stream]:
    rest = replace(wanted, q=None)
    return [
        Stream(column[0], column[2:], "text", words.matching[name], rest)
        for name, column in TEXT_COLUMNS.items()
        if name in words.matching
    ]


def keys_of(
    tenant_id: TenantId,
    streams: Sequence[Stream],
    stretch: Stretch,
    order: Order,
    *,
    limit: int,
    depth: int,
    arguments: Arguments,
) -> str:
    """Spell the query of the first keys (`occurred_at, event_id`) of all streams together.

    Each stream is read `depth` keys deep. Where that is less than the `limit`, the keys end where
    the first stream does that may go on: what comes after might lie behind keys not yet read.
    """
    direction = DIRECTIONS[order]
    key = f"k.occurred_at {direction}, k.event_id {direction}"
    place = _PLACE.format(key=key) if depth < limit else ""
    parts = []
    for stream in streams:
        alias = stream.table
        if alias == "l":
            texts = in_columns(tenant_id, stream.wanted, arguments)
        else:
            texts = [arguments.put("p.tenant_id = {}", tenant_id)]
        column, columns = f"{alias}.{stream.column}", ""
        if stream.is_ordered_by_value:
            texts += _within_value(column, stretch, order, arguments)
            columns = f"{column} {direction}, "
        else:
            texts += [f"{column} = v.v", *within(alias, stretch, order, arguments)]
        values = arguments.put(f"{{}}::{stream.type}[]", stream.values)
        table = "audit_log" if alias == "l" else "audit_personal"
        parts.append(
            f"SELECT k.occurred_at, k.event_id{place}"  # noqa: S608  fixed words, no input
            f" FROM unnest({values}) AS v (v) CROSS JOIN LATERAL ("
            f"SELECT occurred_at, event_id FROM {table} AS {alias} WHERE {' AND '.join(texts)}"
            f" ORDER BY {columns}occurred_at {direction}, event_id {direction} LIMIT {depth}) AS k"
        )
    ordered = f"occurred_at {direction}, event_id {direction}"
    if depth >= limit:
        return f"{' UNION '.join(parts)} ORDER BY {ordered} LIMIT {limit}"
    return (
        f"WITH found AS MATERIALIZED ({' UNION ALL '.join(parts)})"  # noqa: S608  likewise
        " SELECT DISTINCT f.occurred_at, f.event_id FROM found AS f LEFT JOIN ("
        f" SELECT occurred_at, event_id FROM found WHERE place = {depth} ORDER BY {ordered} LIMIT 1"
        ") AS e ON true WHERE e.event_id IS NULL"
        f" OR (f.occurred_at, f.event_id) {COMES_AFTER[_BACK[order]]}= (e.occurred_at, e.event_id)"
        f" ORDER BY {ordered} LIMIT {limit}"
    )


def _within_value(column: str, stretch: Stretch, order: Order, arguments: Arguments) -> list[str]:
    """Keep to one value and a stretch, in a form that only an index of both can answer.

    Asked for `action = v.v`, PostgreSQL guesses that a month with one action alone is full of it,
    and would read that month from end to end to find that it has none.
    """
    texts = [f"{column} <= v.v", f"{column} >= v.v"]
    # A cursor lies between both ends, so it takes the place of the one it comes from.
    if stretch.until is not None and (stretch.after is None or order == "oldest"):
        texts[0] = arguments.put(f"({column}, l.occurred_at) < (v.v, {{}})", stretch.until)
    if stretch.since is not None and (stretch.after is None or order == "newest"):
        texts[1] = arguments.put(f"({column}, l.occurred_at) >= (v.v, {{}})", stretch.since)
    if stretch.after is not None:
        comes_after = (
            f"({column}, l.occurred_at, l.event_id) {COMES_AFTER[order]} (v.v, {{}}, {{}})"
        )
        place = 0 if order == "newest" else 1
        texts[place] = arguments.put(comes_after, stretch.after.at, stretch.after.id)
    return texts
