"""Checkpoints in PostgreSQL: written with each batch of the flush, in its transaction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from maas.audit.application.flush import LogUnavailableError
from maas.audit.domain.checkpoint import GENESIS, MAX_LEAVES, Checkpoint, SignedCheckpoint
from maas.audit.domain.merkle import root_of
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"

COLUMNS: Final = (
    "n", "seq_from", "seq_to", "recorded_at", "root", "head", "previous", "key_id", "hash",
    "signature",
)  # fmt: skip

_LEAVES: Final = """
    SELECT leaf, row_hash FROM audit_chain WHERE seq >= $1 AND seq <= $2 ORDER BY seq
"""
_KEEP_KEY: Final = """
    INSERT INTO audit_signing_keys (key_id, public_key, first_seq, created_at)
    VALUES ($1, $2, $3, $4) ON CONFLICT (key_id) DO NOTHING
"""
_INSERT: Final = f"""
    INSERT INTO audit_checkpoints ({", ".join(COLUMNS)})
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""  # noqa: S608  fixed words, no input
_NEWEST: Final = f"""
    SELECT {", ".join(COLUMNS)} FROM audit_checkpoints ORDER BY n DESC LIMIT 1
"""  # noqa: S608  fixed words, no input


class Signer(Protocol):
    """Holds the private key in use."""

    @property
    def key_id(self) -> str: ...

    @property
    def public_key(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Last:
    """What the next checkpoint follows; all zeros before the first."""

    n: int = 0
    seq_to: int = 0
    hash: bytes = GENESIS
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows a flush just chained: they begin at `seq_from` and all have one time."""

    seq_from: int
    recorded_at: datetime
    leaves: Sequence[bytes]
    head: bytes

    @property
    def seq_to(self) -> int:
        return self.seq_from + len(self.leaves) - 1


async def write_checkpoints(
    connection: Connection, batch: Batch, *, last: Last, signer: Signer
) -> None:
    """Cover a batch, and before it what no checkpoint covers yet.

    Rows that are older than the first checkpoint are covered in stretches of `MAX_LEAVES`.
    """
    if signer.key_id != last.key_id:
        first_seq = last.seq_to + 1
        await connection.execute(
            _KEEP_KEY, signer.key_id, signer.public_key, first_seq, batch.recorded_at
        )
    for seq_from, seq_to in _stretches(last.seq_to + 1, batch):
        if seq_from == batch.seq_from:
            leaves, head = batch.leaves, batch.head
        else:
            rows = await connection.fetch(_LEAVES, seq_from, seq_to)
            leaves, head = [row["leaf"] for row in rows], rows[-1]["row_hash"]
        checkpoint = Checkpoint(
            n=last.n + 1,
            seq_from=seq_from,
            seq_to=seq_to,
            recorded_at=batch.recorded_at,
            root=root_of(leaves),
            head=head,
            previous=last.hash,
            key_id=signer.key_id,
        )
        last = replace(last, n=checkpoint.n, seq_to=seq_to, hash=checkpoint.digest())
        signature = signer.sign(checkpoint.to_bytes())
        await connection.execute(_INSERT, *_values(checkpoint), last.hash, signature)


def _stretches(first: int, batch: Batch) -> Iterator[tuple[int, int]]:
    while first < batch.seq_from:
        last = min(first + MAX_LEAVES, batch.seq_from) - 1
        yield first, last
        first = last + 1
    yield batch.seq_from, batch.seq_to


def _values(checkpoint: Checkpoint) -> tuple[object, ...]:
    return (
        checkpoint.n,
        checkpoint.seq_from,
        checkpoint.seq_to,
        checkpoint.recorded_at,
        checkpoint.root,
        checkpoint.head,
        checkpoint.previous,
        checkpoint.key_id,
    )


async def read_newest(settings: DatabaseSettings) -> SignedCheckpoint | None:
    """Read the last checkpoint, over a connection of its own.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    try:
        connection = await asyncpg.connect(**system_arguments(settings))
        try:
            row = await connection.fetchrow(_NEWEST)
        finally:
            await connection.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
        raise LogUnavailableError(type(exc).__name__) from exc
    return None if row is None else read_row(row)


def read_row(row: Any) -> SignedCheckpoint:
    """Read a row of `audit_checkpoints`, whose columns may hold anything after tampering."""
    checkpoint = Checkpoint(
        n=row["n"],
        seq_from=row["seq_from"],
        seq_to=row["seq_to"],
        recorded_at=row["recorded_at"],
        root=row["root"],
        head=row["head"],
        previous=row["previous"],
        key_id=row["key_id"],
    )
    return SignedCheckpoint(checkpoint=checkpoint, signature=row["signature"])
