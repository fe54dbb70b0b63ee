"""People who are being erased, found by what they are called: in rows, in raw bytes, in files."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from maas.audit.domain.record import Record
from maas.audit.infrastructure.checkpoints import Connection
from maas.audit.infrastructure.spool import TORN_SUFFIX

_PENDING: Final = """
    SELECT names, emails FROM audit_erasures
    WHERE erased_at IS NULL AND (names <> '{}' OR emails <> '{}')
"""
_NOTE: Final = """
    INSERT INTO audit_erased_events (event_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING
"""
_LETTERS: Final = "SELECT id, fields FROM audit_dead_letter WHERE id > $1 ORDER BY id LIMIT 200"
_REWRITE: Final = "UPDATE audit_dead_letter SET fields = $2 WHERE id = $1"
# Words of the trail are few, and spelled as they were typed; personal fields are found by them.
_SPELLINGS: Final = """
    SELECT field, term FROM audit_terms
    WHERE tenant_id = $1 AND field IN ('name', 'email') AND lower(term) = ANY($2)
"""
# A name may be somebody else's by now: it counts only where nobody had signed in.
_NAMED: Final = """
    SELECT event_id FROM audit_personal WHERE tenant_id = $1 AND email = ANY($2)
    UNION
    SELECT p.event_id FROM audit_personal AS p JOIN audit_log AS l ON l.event_id = p.event_id
    WHERE p.tenant_id = $1 AND p.actor_name = ANY($3) AND l.actor_kind = 'anonymous'
    LIMIT $4
"""


@dataclass(frozen=True, slots=True)
class Called:
    """Names and e-mails, in lower case."""

    names: frozenset[str]
    emails: frozenset[str]

    @classmethod
    def of(cls, names: Iterable[str] | None, emails: Iterable[str] | None) -> "Called":
        return cls(
            frozenset(name.lower() for name in names or ()),
            frozenset(email.lower() for email in emails or ()),
        )

    def is_in(self, record: Record) -> bool:
        if isinstance(record.email, str) and record.email.lower() in self.emails:
            return True
        name = record.actor_name
        is_unsigned = record.actor_kind == "anonymous" and isinstance(name, str)
        return is_unsigned and str(name).lower() in self.names


async def take_names(connection: Connection, records: Sequence[Record]) -> set[UUID]:
    """Take the names out of events that tell of somebody who is being erased; list those events.

    Nobody is, most of the time, and then this is one look at an empty index.
    """
    pending = await connection.fetch(_PENDING)
    if not pending:
        return set()
    called = Called.of(
        [name for row in pending for name in row["names"] or ()],
        [email for row in pending for email in row["emails"] or ()],
    )
    found = [record for record in records if called.is_in(record)]
    for record in found:
        record.actor_name = record.email = None
    await connection.execute(_NOTE, [record.event_id for record in found])
    return {record.event_id for record in found}


async def find_named(
    connection: Connection, tenant_id: UUID, called: Called, *, limit: int
) -> list[UUID]:
    """Find a tenant's next events that tell of somebody, in any spelling."""
    if not called.names and not called.emails:
        return []
    spellings = await connection.fetch(_SPELLINGS, tenant_id, [*called.names, *called.emails])
    names = [row["term"] for row in spellings if row["field"] == "name"]
    emails = [row["term"] for row in spellings if row["field"] == "email"]
    rows = await connection.fetch(
        _NAMED,
        tenant_id,
        [email for email in emails if email.lower() in called.emails],
        [name for name in names if name.lower() in called.names],
        limit,
    )
    return [row["event_id"] for row in rows]


async def note_erased(connection: Connection, event_ids: Sequence[UUID]) -> None:
    """Keep that these events lack their personal fields rightly."""
    await connection.execute(_NOTE, event_ids)


async def blacken_dead_letters(connection: Connection, values: Iterable[str]) -> int:
    """Make values unreadable in what was set aside unread, and tell in how many entries."""
    pattern, changed, last = _pattern(values), 0, 0
    while pattern is not None:
        rows = await connection.fetch(_LETTERS, last)
        if not rows:
            break
        last = rows[-1]["id"]
        for row in rows:
            fields = [_blacken(pattern, part) for part in row["fields"]]
            if fields != row["fields"]:
                changed += 1
                await connection.execute(_REWRITE, row["id"], fields)
    return changed


def blacken_torn_spools(folder: Path, values: Iterable[str]) -> int:
    """Make values unreadable in spools that could not be read to their end.

    Raises:
        OSError: a file cannot be written.
    """
    pattern, changed = _pattern(values), 0
    if pattern is None:
        return 0
    for path in sorted(folder.glob(f"*{TORN_SUFFIX}")):
        content = path.read_bytes()
        blackened = _blacken(pattern, content)
        if blackened != content:
            changed += 1
            # In place and of the same length: there is no moment at which it is not there.
            with path.open("r+b") as file:
                file.write(blackened)
    return changed


def _pattern(values: Iterable[str]) -> re.Pattern[bytes] | None:
    """Match values in any case, as they are and as JSON escapes them."""
    spelled = {
        form
        for value in values
        for cased in {value, value.lower(), value.upper()}
        for form in (cased.encode(), json.dumps(cased)[1:-1].encode())
        if value
    }
    if not spelled:
        return None
    return re.compile(b"|".join(map(re.escape, sorted(spelled))), re.IGNORECASE)


def _blacken(pattern: re.Pattern[bytes], content: bytes) -> bytes:
    return pattern.sub(lambda match: b"#" * len(match[0]), content)
