"""The words of the trail: what a text is looked for in, and which kinds of things acts are about.

Each is kept once for a tenant. The flush adds those of its batch in its own transaction, so that no
event is in the log whose words are not here; a trigger takes names and e-mails away with the last
personal field that has them.
"""

from collections.abc import Collection, Sequence
from typing import Final

from maas.audit.domain.record import Record
from maas.audit.infrastructure.checkpoints import Connection

Term = tuple[str, str, str, str]
"""Tenant, field, the term itself, and what it leads to: a kind of thing leads to an action."""

_KEEP: Final = """
    INSERT INTO audit_terms (tenant_id, field, term, leads_to)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) ON CONFLICT DO NOTHING
"""


def terms_of(records: Sequence[Record], *, erased: Collection[str | None]) -> set[Term]:
    """List the terms of events; those of erased actors leave no personal ones."""
    acts = {(item.tenant_id, item.action, item.resource_kind, item.reason) for item in records}
    people = {
        (item.tenant_id, item.actor_name, item.email)
        for item in records
        if item.actor_id not in erased
    }
    terms: set[Term] = set()
    for tenant_id, action, kind, reason in acts:
        terms.add((tenant_id, "action", action, ""))
        if kind is not None:
            terms.add((tenant_id, "kind", kind, action))
        if reason is not None:
            terms.add((tenant_id, "reason", reason, ""))
    for tenant_id, name, email in people:
        if name is not None:
            terms.add((tenant_id, "name", name, ""))
        if email is not None:
            terms.add((tenant_id, "email", email, ""))
    return terms


async def keep_terms(connection: Connection, terms: Collection[Term]) -> None:
    """Add the terms that are new; sorted, so that two who add the same wait and do not cross."""
    columns = list(zip(*sorted(terms), strict=True))
    if columns:
        await connection.execute(_KEEP, *columns)
