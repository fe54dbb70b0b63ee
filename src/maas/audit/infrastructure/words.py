"""What the trail's own words say about a filter: which values of a column it means.

A prefix, a kind of thing, a network and a text each mean several values. Where these are few, each
is looked up by an index that has the list's order; that is quick however rare or old they are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias, cast

from maas.audit.application.queries import EventFilter
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import PooledConnection

MOST_WORDS: Final = 500
MOST_ADDRESSES: Final = 250

Address: TypeAlias = IPv4Address | IPv6Address

_SPECIAL: Final = re.compile(r"([\\%_])")

_MATCHING: Final = "SELECT field, term FROM audit_matching_terms($1, $2)"
_ACTIONS: Final = """
    SELECT term FROM audit_terms
    WHERE tenant_id = $1 AND field = 'action' AND term COLLATE "C" >= $2 AND term COLLATE "C" < $3
    ORDER BY term
"""
_KINDS: Final = """
    SELECT DISTINCT term FROM audit_terms WHERE tenant_id = $1 AND field = 'kind' ORDER BY term
"""
_ACTIONS_OF_KIND: Final = """
    SELECT leads_to FROM audit_terms
    WHERE tenant_id = $1 AND field = 'kind' AND term = $2 ORDER BY leads_to
"""
# From address to address along the index, and not through all events of each.
_ADDRESSES: Final = """
    WITH RECURSIVE found AS (
        (SELECT address FROM audit_personal
         WHERE tenant_id = $1 AND address >= $2 AND address <= $3 ORDER BY address LIMIT 1)
        UNION ALL
        SELECT (SELECT p.address FROM audit_personal p
                WHERE p.tenant_id = $1 AND p.address > found.address AND p.address <= $3
                ORDER BY p.address LIMIT 1)
        FROM found WHERE found.address IS NOT NULL
    )
    SELECT address FROM found WHERE address IS NOT NULL LIMIT $4
"""
_LAST_CHARACTER: Final = "\U0010ffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The values that a filter means; none where it means too many, or nothing was asked."""

    q: str | None = None
    has_all: bool = True
    """Whether `matching` are all the words that `q` is in."""

    matching: dict[str, list[str]] = field(default_factory=dict)
    actions: Sequence[str] | None = None
    kinds: Sequence[str] | None = None
    addresses: Sequence[Address] | None = None

    @property
    def is_in_nothing(self) -> bool:
        """Whether no event of the trail has the text."""
        return self.q is not None and not self.matching

    @property
    def pattern(self) -> str:
        """The pattern of `LIKE` that finds `q` as it is spelled."""
        spelled = _SPECIAL.sub(r"\\\1", self.q or "")
        return f"%{spelled}%"


async def find_words(
    connection: PooledConnection, tenant_id: TenantId, wanted: EventFilter
) -> Words:
    matching: dict[str, list[str]] = {}
    has_all = True
    if wanted.q is not None:
        rows = await connection.fetch(_MATCHING, wanted.q, MOST_WORDS + 1)
        has_all = len(rows) <= MOST_WORDS
        for row in rows:
            matching.setdefault(row["field"], []).append(row["term"])
    return Words(
        q=wanted.q,
        has_all=has_all,
        matching=matching,
        actions=await _find_actions(connection, tenant_id, wanted),
        kinds=await _find_kinds(connection, tenant_id, wanted),
        addresses=await _find_addresses(connection, tenant_id, wanted),
    )


async def _find_actions(
    connection: PooledConnection, tenant_id: TenantId, wanted: EventFilter
) -> Sequence[str] | None:
    if wanted.action is not None and wanted.action.endswith("*"):
        prefix = wanted.action.removesuffix("*")
        rows = await connection.fetch(_ACTIONS, tenant_id, prefix, prefix + _LAST_CHARACTER)
    elif wanted.action is None and wanted.resource_kind is not None and wanted.resource_id is None:
        rows = await connection.fetch(_ACTIONS_OF_KIND, tenant_id, wanted.resource_kind)
    else:
        return None
    return [row[0] for row in rows]


async def _find_kinds(
    connection: PooledConnection, tenant_id: TenantId, wanted: EventFilter
) -> Sequence[str] | None:
    if wanted.resource_id is None or wanted.resource_kind is not None:
        return None
    return [row[0] for row in await connection.fetch(_KINDS, tenant_id)]


async def _find_addresses(
    connection: PooledConnection, tenant_id: TenantId, wanted: EventFilter
) -> Sequence[Address] | None:
    network = wanted.address
    if network is None:
        return None
    first, last = network.network_address, network.broadcast_address
    if first == last:
        return [first]
    rows = await connection.fetch(_ADDRESSES, tenant_id, first, last, MOST_ADDRESSES + 1)
    if len(rows) > MOST_ADDRESSES:
        return None
    return cast("list[Address]", [row[0] for row in rows])
