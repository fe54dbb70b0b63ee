"""Exporting one tenant's events, with all it takes to check them elsewhere."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Protocol

from maas.audit.application.proofs import CheckpointDetails, NoCheckpointError
from maas.audit.domain.chain_check import ChainRow
from maas.audit.domain.event import spell_instant
from maas.audit.domain.export import VERSION, Counts, spell_line, spell_statement
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import TenantId

PAGE_ROWS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedEvent:
    """What an event's line holds beside its row of the chain; `personal` is null once erased."""

    payload: bytes
    duration_ms: int | None
    personal: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPage:
    """A stretch of the chain; `events` are the tenant's own, by `seq`."""

    rows: Sequence[ChainRow]
    events: Mapping[int, ExportedEvent]
    checkpoints: Sequence[CheckpointDetails]


class ExportReader(Protocol):
    async def keys(self) -> Sequence[Mapping[str, Any]]:
        """List every public key that signed, as lines hold them."""
        ...

    async def head(self) -> CheckpointDetails:
        """Show the newest checkpoint.

        Raises:
            NoCheckpointError: there is none yet.
        """
        ...

    async def page(
        self, tenant_id: TenantId, *, after: int, upto: int, after_n: int, limit: int
    ) -> ExportPage:
        """Read the next rows, and the checkpoints that begin among them."""
        ...


class StatementSigner(Protocol):
    @property
    def key_id(self) -> str: ...

    def sign(self, message: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportService:
    """Reads page by page: no transaction and no connection is held while a client is slow.

    What is recorded never changes, so pages of different moments fit together; rows that come after
    the first page was asked for are left to the next export.
    """

    reader: ExportReader
    clock: Clock
    signer: StatementSigner | None
    page_rows: int = PAGE_ROWS

    async def export(self, tenant_id: TenantId) -> AsyncIterator[bytes]:
        """Spell the lines, some thousand at a time."""
        keys, seq_to = await self.reader.keys(), 0
        try:
            seq_to = (await self.reader.head()).signed.checkpoint.seq_to
        except NoCheckpointError:
            keys = []
        counts, digest = Counts(), sha256()
        header = {
            "v": VERSION,
            "tenant_id": str(tenant_id),
            "seq_to": seq_to,
            "exported_at": spell_instant(self.clock.now()),
        }
        chunk = spell_line("header", header) + b"".join(spell_line("key", key) for key in keys)
        after = after_n = 0
        while True:
            digest.update(chunk)
            yield chunk
            if after >= seq_to:
                break
            page = await self.reader.page(
                tenant_id, after=after, upto=seq_to, after_n=after_n, limit=self.page_rows
            )
            chunk = b"".join(_lines(page, counts))
            after = page.rows[-1][0] if page.rows else seq_to
            if page.checkpoints:
                after_n = page.checkpoints[-1].signed.checkpoint.n
        yield self._end(tenant_id, seq_to, counts, digest.digest(), keys)

    def _end(
        self,
        tenant_id: TenantId,
        seq_to: int,
        counts: Counts,
        digest: bytes,
        keys: Sequence[Mapping[str, Any]],
    ) -> bytes:
        """Spell the last line, signed unless this process has another key than the flush."""
        signer = self.signer
        if signer is not None and all(key["key_id"] != signer.key_id for key in keys):
            signer = None
        statement = spell_statement(
            tenant_id=str(tenant_id), seq_to=seq_to, counts=counts, digest=digest
        )
        fields = {
            "events": counts.events,
            "others": counts.others,
            "checkpoints": counts.checkpoints,
            "sha256": digest.hex(),
            "key_id": None if signer is None else signer.key_id,
            "signature": None if signer is None else signer.sign(statement).hex(),
        }
        return spell_line("end", fields)


def _lines(page: ExportPage, counts: Counts) -> Iterable[bytes]:
    for details in page.checkpoints:
        counts.checkpoints += 1
        fields = {**details.signed.to_mapping(), "hash": details.hash.hex()}
        yield spell_line("checkpoint", fields)
    for seq, recorded_at, leaf, row_hash in page.rows:
        fields = {
            "seq": seq,
            "recorded_at": spell_instant(recorded_at),
            "leaf": leaf.hex(),
            "row_hash": row_hash.hex(),
        }
        event = page.events.get(seq)
        if event is None:
            counts.others += 1
            yield spell_line("other", fields)
            continue
        counts.events += 1
        own = {
            "payload": event.payload.decode(errors="replace"),
            "duration_ms": event.duration_ms,
            "personal": event.personal,
        }
        yield spell_line("event", {**fields, **own})
