"""A thousand ways to change what was recorded, as a superuser with every trigger off."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID

from maas.audit.domain.chain import leaf_of, micros, row_hash
from maas.audit.domain.findings import Finding
from maas.audit.infrastructure.checkpoints import read_row
from maas.audit.infrastructure.rollup_check import ROLLUPS
from maas.audit.infrastructure.signing import Ed25519Signer
from maas.shared.domain.ids import new_id
from tests.integration.audit.helpers import Superuser

# Left out: `duration_ms` is advisory and not hashed.
LOG_COLUMNS = (
    "seq", "recorded_at", "retention_class", "event_id", "tenant_id", "occurred_at", "actor_kind",
    "actor_id", "session_id", "api_key_id", "action", "resource_kind", "resource_id", "outcome",
    "reason", "request_id", "payload",
)  # fmt: skip
CHAIN_COLUMNS = ("seq", "recorded_at", "leaf", "row_hash")
PERSONAL_COLUMNS = (
    "event_id", "tenant_id", "actor_name", "email", "address", "user_agent", "salt",
)  # fmt: skip
CHECKPOINT_COLUMNS = (
    "n", "seq_from", "seq_to", "recorded_at", "root", "head", "previous", "key_id", "hash",
    "signature",
)  # fmt: skip
KEY_COLUMNS = ("key_id", "public_key", "first_seq", "created_at")
CLASSES = ("security", "operations", "usage")


@dataclass(frozen=True, slots=True)
class Expected:
    """Where the first finding is: at one of these rows, or under a subject that begins so."""

    what: str
    rows: frozenset[int] = frozenset()
    subject: str = ""
    is_cut: bool = False

    def is_named_by(self, finding: Finding) -> bool:
        return finding.seq in self.rows or bool(
            self.subject and finding.subject.startswith(self.subject)
        )


Tampering: TypeAlias = Callable[["Tamperer"], Awaitable[Expected]]


@dataclass(frozen=True, slots=True)
class Tamperer:
    """Changes one thing at random; the caller takes it back."""

    connection: Superuser
    random: random.Random
    last: int

    async def change(self) -> Expected:
        return await self.random.choice(TAMPERINGS)(self)

    def any_row(self) -> int:
        return self.random.randint(1, self.last)

    async def row(self, table: str, key: str, value: object) -> Any:
        row = await self.connection.fetchrow(f"SELECT * FROM {table} WHERE {key} = $1", value)
        assert row is not None
        return row

    async def set(self, table: str, key: str, value: object, column: str) -> Any:
        """Give a column another value of its kind, and return that."""
        kind = await self.connection.fetchval(
            "SELECT data_type FROM information_schema.columns"
            " WHERE table_name = $1 AND column_name = $2",
            table, column,
        )  # fmt: skip
        old = (await self.row(table, key, value))[column]
        new = self.other(kind, old, column)
        await self.connection.execute(
            f"UPDATE {table} SET {column} = $2 WHERE {key} = $1", value, new
        )
        return new

    def other(self, kind: str, old: Any, column: str) -> Any:
        dice = self.random
        new: Any = None
        match kind:
            case "bigint":
                # Beyond the others' numbers, so that no unique index objects.
                new = self.last + dice.randint(500, 5_000)
            case "uuid":
                new = UUID(int=dice.getrandbits(128))
            case "timestamp with time zone":
                new = old + timedelta(microseconds=dice.choice([1, -1, 1_000_000]))
            case "inet":
                new = f"198.51.100.{dice.randint(1, 254)}"
            case "bytea":
                new = self.flip(old) if dice.random() < 0.8 else old[:-1]
            case "text" if column == "retention_class":
                new = dice.choice([name for name in CLASSES if name != old])
            case "text" if old is not None:
                new = dice.choice([f"{old}x", old[:-1] or "y", old.swapcase() + "z"])
            case _:
                pass
        return new or "x"

    def flip(self, old: bytes) -> bytes:
        place = self.random.randrange(len(old))
        return old[:place] + bytes([old[place] ^ 1 << self.random.randrange(8)]) + old[place + 1 :]


async def edit_log(t: Tamperer) -> Expected:
    seq, column = t.any_row(), t.random.choice(LOG_COLUMNS)
    new = await t.set("audit_log", "seq", seq, column)
    rows = {seq, new} if column == "seq" else {seq}
    return Expected(f"audit_log.{column} of {seq}", frozenset(rows))


async def flip_payload(t: Tamperer) -> Expected:
    seq = t.any_row()
    payload = t.flip((await t.row("audit_log", "seq", seq))["payload"])
    await t.connection.execute("UPDATE audit_log SET payload = $2 WHERE seq = $1", seq, payload)
    return Expected(f"a bit of the payload of {seq}", frozenset({seq}))


async def edit_chain(t: Tamperer) -> Expected:
    seq, column = t.any_row(), t.random.choice(CHAIN_COLUMNS)
    await t.set("audit_chain", "seq", seq, column)
    return Expected(f"audit_chain.{column} of {seq}", frozenset({seq}))


async def edit_personal(t: Tamperer) -> Expected:
    seq, column = t.any_row(), t.random.choice(PERSONAL_COLUMNS)
    event_id = (await t.row("audit_log", "seq", seq))["event_id"]
    await t.set("audit_personal", "event_id", event_id, column)
    if column == "event_id":
        return Expected(f"audit_personal.event_id of {seq}", frozenset({seq}))
    return Expected(f"audit_personal.{column} of {seq}", frozenset({seq}))


async def blank_personal(t: Tamperer) -> Expected:
    seq = t.any_row()
    event_id = (await t.row("audit_log", "seq", seq))["event_id"]
    await t.connection.execute(
        "UPDATE audit_personal SET address = NULL WHERE event_id = $1", event_id
    )
    return Expected(f"the address of {seq}", frozenset({seq}))


async def swap(t: Tamperer) -> Expected:
    """Let two rows change places, in the log, in the chain or in both."""
    one, other = sorted(t.random.sample(range(1, t.last + 1), 2))
    tables = t.random.choice([["audit_log"], ["audit_chain"], ["audit_log", "audit_chain"]])
    for table in tables:
        for old, new in ((one, -1), (other, one), (-1, other)):
            await t.connection.execute(f"UPDATE {table} SET seq = $2 WHERE seq = $1", old, new)
    return Expected(f"{one} and {other} in {tables}", frozenset({one, other}))


async def swap_payloads(t: Tamperer) -> Expected:
    one, other = t.random.sample(range(1, t.last + 1), 2)
    payloads = [(await t.row("audit_log", "seq", seq))["payload"] for seq in (one, other)]
    for seq, payload in ((one, payloads[1]), (other, payloads[0])):
        await t.connection.execute("UPDATE audit_log SET payload = $2 WHERE seq = $1", seq, payload)
    return Expected(f"the payloads of {one} and {other}", frozenset({one, other}))


async def delete(t: Tamperer) -> Expected:
    seq = t.any_row()
    tables = t.random.choice([["audit_log"], ["audit_chain"], ["audit_log", "audit_chain"]])
    for table in tables:
        await t.connection.execute(f"DELETE FROM {table} WHERE seq = $1", seq)
    # Without the chain's last row, its head is what names a row too many.
    subject = "head" if seq == t.last else ""
    return Expected(f"{seq} gone from {tables}", frozenset({seq}), subject)


async def insert_into_log(t: Tamperer) -> Expected:
    """Slip a second row of the same number in, or one beyond the end, or before the start."""
    seq = t.any_row()
    place = t.random.choice([seq, seq, t.last + 1, 0])
    await t.connection.execute(
        "INSERT INTO audit_log SELECT (l).* FROM (SELECT jsonb_populate_record(a, $3) AS l"
        " FROM audit_log a WHERE seq = $1) AS changed WHERE $2::int IS NOT NULL",
        seq, place, f'{{"seq": {place}, "event_id": "{new_id()}",'
        f' "recorded_at": "2026-12-24T00:00:00Z"}}',
    )  # fmt: skip
    return Expected(f"{place} into the log", frozenset({place}))


async def insert_at_end(t: Tamperer) -> Expected:
    """Append a row that is chained as it should be, with the head or without."""
    last = await t.row("audit_chain", "seq", t.last)
    model = await t.row("audit_log", "seq", t.any_row())
    seq, at, leaf = t.last + 1, last["recorded_at"], leaf_of(model["payload"])
    digest = row_hash(last["row_hash"], seq=seq, recorded_micros=micros(at), leaf=leaf)
    await t.connection.execute(
        "INSERT INTO audit_chain VALUES ($1, $2, $3, $4)", seq, at, leaf, digest
    )
    if t.random.random() < 0.5:
        await t.connection.execute("UPDATE audit_head SET seq = $1, hash = $2", seq, digest)
    return Expected("a row after the last", frozenset({seq}))


async def rewrite(t: Tamperer) -> Expected:
    """Change an event and redo every hash after it, up to the head."""
    seq = t.any_row()
    row = await t.row("audit_log", "seq", seq)
    payload = row["payload"].replace(b'"outcome":"success"', b'"outcome":"failure"')
    assert payload != row["payload"]
    await t.connection.execute(
        "UPDATE audit_log SET payload = $2, outcome = 'failure' WHERE seq = $1", seq, payload
    )
    rows = await t.connection.fetch("SELECT * FROM audit_chain WHERE seq >= $1 ORDER BY seq", seq)
    before = bytes(32)
    if seq > 1:
        before = (await t.row("audit_chain", "seq", seq - 1))["row_hash"]
    changed = []
    for each in rows:
        leaf = leaf_of(payload) if each["seq"] == seq else each["leaf"]
        at = micros(each["recorded_at"])
        before = row_hash(before, seq=each["seq"], recorded_micros=at, leaf=leaf)
        changed.append((each["seq"], leaf, before))
    await t.connection.executemany(
        "UPDATE audit_chain SET leaf = $2, row_hash = $3 WHERE seq = $1", changed
    )
    await t.connection.execute("UPDATE audit_head SET hash = $1", before)
    covering = await t.connection.fetchval(
        "SELECT seq_from FROM audit_checkpoints WHERE seq_to >= $1 ORDER BY n LIMIT 1", seq
    )
    return Expected(f"{seq}, and all hashes after it", frozenset({covering}))


async def any_checkpoint(t: Tamperer) -> Any:
    rows = await t.connection.fetch("SELECT * FROM audit_checkpoints ORDER BY n")
    return t.random.choice(rows)


async def edit_checkpoint(t: Tamperer) -> Expected:
    row, column = await any_checkpoint(t), t.random.choice(CHECKPOINT_COLUMNS)
    if column in ("seq_from", "seq_to"):
        await t.connection.execute(
            "ALTER TABLE audit_checkpoints DROP CONSTRAINT ck_audit_checkpoints_seq_order"
        )
    await t.set("audit_checkpoints", "n", row["n"], column)
    return Expected(
        f"audit_checkpoints.{column} of {row['n']}", frozenset({row["seq_from"]}), "checkpoint"
    )


async def delete_checkpoint(t: Tamperer) -> Expected:
    row = await any_checkpoint(t)
    await t.connection.execute("DELETE FROM audit_checkpoints WHERE n = $1", row["n"])
    return Expected(f"checkpoint {row['n']} gone", frozenset({row["seq_from"]}))


async def resign(t: Tamperer) -> Expected:
    """Sign a checkpoint with a key of one's own, and put that where keys are kept."""
    row = await any_checkpoint(t)
    signer = Ed25519Signer(t.random.randbytes(32))
    signature = signer.sign(read_row(row).checkpoint.to_bytes())
    match t.random.choice(["signature", "replaced", "added"]):
        case "signature":
            await t.connection.execute(
                "UPDATE audit_checkpoints SET signature = $2 WHERE n = $1", row["n"], signature
            )
            return Expected("a foreign signature", frozenset({row["seq_from"]}))
        case "replaced":
            await t.connection.execute(
                "UPDATE audit_signing_keys SET public_key = $1", signer.public_key
            )
            return Expected("the key replaced", subject="key ")
        case _:
            pass
    await t.connection.execute(
        "INSERT INTO audit_signing_keys VALUES ($1, $2, $3, now())",
        signer.key_id, signer.public_key, row["seq_from"],
    )  # fmt: skip
    await resign_from(t, row["n"], signer)
    return Expected("all from there on signed anew", frozenset({row["seq_from"]}))


async def resign_from(t: Tamperer, n: int, signer: Ed25519Signer) -> None:
    rows = await t.connection.fetch("SELECT * FROM audit_checkpoints WHERE n >= $1 ORDER BY n", n)
    before = None
    for row in rows:
        values = dict(row) | {"key_id": signer.key_id}
        if before is not None:
            values["previous"] = before
        checkpoint = read_row(values).checkpoint
        before = checkpoint.digest()
        await t.connection.execute(
            "UPDATE audit_checkpoints SET key_id = $2, previous = $3, hash = $4, signature = $5"
            " WHERE n = $1",
            row["n"], signer.key_id, checkpoint.previous, before,
            signer.sign(checkpoint.to_bytes()),
        )  # fmt: skip


async def edit_key(t: Tamperer) -> Expected:
    column = t.random.choice(KEY_COLUMNS)
    key_id = await t.connection.fetchval("SELECT key_id FROM audit_signing_keys")
    await t.set("audit_signing_keys", "key_id", key_id, column)
    return Expected(f"audit_signing_keys.{column}", subject="key ")


async def edit_head(t: Tamperer) -> Expected:
    column = t.random.choice(["seq", "hash"])
    await t.set("audit_head", "id", 1, column)
    return Expected(f"audit_head.{column}", subject="head")


async def edit_rollup(t: Tamperer) -> Expected:
    table = t.random.choice(ROLLUPS).table
    one = await t.connection.fetchval(f"SELECT max(newest_seq) FROM {table}")
    change = t.random.choice(
        ["events = events + 1", "failures = failures + 1", "denials = events", "newest_seq = 0"]
    )
    await t.connection.execute(f"UPDATE {table} SET {change} WHERE newest_seq = $1", one)
    return Expected(f"{change} in {table}", subject="audit_rollup_")


async def cut(t: Tamperer) -> Expected:
    """Cut the end off wherever it shows: only a head from before tells."""
    checkpoints: Sequence[Any] = await t.connection.fetch(
        "SELECT n, seq_to, recorded_at FROM audit_checkpoints ORDER BY n"
    )
    kept = checkpoints[t.random.randrange(0, len(checkpoints) - 1)]
    end = await t.row("audit_chain", "seq", kept["seq_to"])
    for table in ("audit_personal", "audit_dedup"):
        await t.connection.execute(
            f"DELETE FROM {table} USING audit_log l WHERE l.event_id = {table}.event_id"
            " AND l.seq > $1",
            kept["seq_to"],
        )
    for table in ("audit_log", "audit_chain"):
        await t.connection.execute(f"DELETE FROM {table} WHERE seq > $1", kept["seq_to"])
    await t.connection.execute("DELETE FROM audit_checkpoints WHERE n > $1", kept["n"])
    for rollup in ROLLUPS:
        await t.connection.execute(f"DELETE FROM {rollup.table}")
        await t.connection.execute(f"INSERT INTO {rollup.table} {rollup.counted}")
    await t.connection.execute(
        "UPDATE audit_head SET seq = $1, hash = $2", end["seq"], end["row_hash"]
    )
    return Expected(f"all after {end['seq']}", frozenset({t.last}), is_cut=True)


TAMPERINGS: Sequence[Tampering] = (
    *(edit_log,) * 4, flip_payload, flip_payload, *(edit_chain,) * 3, edit_personal,
    blank_personal, swap, swap_payloads, delete, delete, insert_into_log, insert_at_end, rewrite,
    edit_checkpoint, edit_checkpoint, delete_checkpoint, resign, edit_key, edit_head, cut,
    edit_rollup,
)  # fmt: skip
