"""Exporting one tenant's events, with all it takes to check them elsewhere."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from maas.audit.application.export_cursor import ExportCursor, read_cursor, spell_cursor
from maas.audit.application.export_ports import (
    PAGE_ROWS,
    ExportedEvent,
    ExportReader,
    ExportRequest,
    PageRequest,
    StatementSigner,
    in_slices,
)
from maas.audit.application.proofs import CheckpointDetails
from maas.audit.application.queries import EventFilter
from maas.audit.domain.chain_check import ChainRow
from maas.audit.domain.event import spell_instant
from maas.audit.domain.export import (
    Counts,
    Digest,
    Header,
    spell_line,
    spell_mark,
    spell_statement,
)
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import TenantId

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(slots=True, kw_only=True)
class _Text:
    """What was spelled so far, as far as the rest depends on it."""

    counts: Counts = field(default_factory=Counts)
    digest: Digest = field(default_factory=Digest)
    after: int
    after_n: int

    def add(self, text: bytes) -> bytes:
        self.digest.update(text)
        return text


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

    async def begin(self, request: ExportRequest) -> Header:
        """Find the stretch of the chain that was asked for, as it is now."""
        stretch = await self.reader.find_stretch(*request.recorded, request.upto_seq)
        return Header(
            tenant_id=str(request.tenant_id),
            content=request.content,
            since=request.wanted.since,
            until=request.wanted.until,
            wanted=request.filters,
            upto_seq=request.upto_seq,
            start=stretch.start,
            seq_to=stretch.seq_to,
            exported_at=self.clock.now(),
        )

    async def lines(self, header: Header) -> AsyncIterator[bytes]:
        """Spell the lines, some thousand at a time."""
        keys, start = await self.reader.keys(), header.start
        text = _Text(after=start.seq - 1, after_n=start.n - 1)
        first = spell_line("header", header.to_mapping())
        yield text.add(first + b"".join(spell_line("key", key) for key in keys))
        async for chunk in self._rest(header, text):
            yield chunk

    def read_cursor(self, tenant_id: TenantId, cursor: str) -> ExportCursor:
        """Read a cursor of one of the tenant's exports.

        Raises:
            ExportCursorError: it is none, another tenant's, or too old.
        """
        return read_cursor(cursor, tenant_id=tenant_id, signer=self.signer, now=self.clock.now())

    async def resume(self, read: ExportCursor, cursor: str) -> AsyncIterator[bytes]:
        """Spell what follows the mark with this cursor."""
        text = _Text(
            counts=read.counts, digest=Digest(read.digest), after=read.after, after_n=read.after_n
        )
        text.add(spell_mark(read.after, cursor))
        async for chunk in self._rest(read.header, text):
            yield chunk

    async def _rest(self, header: Header, text: _Text) -> AsyncIterator[bytes]:
        """Spell page after page, a mark between two, and the end."""
        request = request_of(header)
        while text.after < header.seq_to:
            wanted = PageRequest(
                after=text.after, after_n=text.after_n, upto=header.seq_to, limit=self.page_rows
            )
            page = await self.reader.page(request, wanted)
            async for details in in_slices(page.checkpoints):
                yield text.add(_spell_checkpoints(details, text.counts))
            async for rows in in_slices(page.rows):
                yield text.add(_spell_rows(rows, page.events, text.counts))
            # Rows that are missing at the end would be asked for again and again.
            text.after = page.rows[-1][0] if page.rows else header.seq_to
            if page.checkpoints:
                text.after_n = page.checkpoints[-1].signed.checkpoint.n
            if self.signer is not None and text.after < header.seq_to:
                yield self._mark(header, text, self.signer)
        if header.start.seq <= header.seq_to:
            # Whatever was gone when its page was read has been buried by now.
            buried = await self.reader.tombstones(header.start.seq, header.seq_to)
            text.counts.tombstones += len(buried)
            yield text.add(b"".join(spell_line("tombstone", each.to_mapping()) for each in buried))
        yield await self._end(header, text)

    def _mark(self, header: Header, text: _Text, signer: StatementSigner) -> bytes:
        cursor = ExportCursor(
            header=header,
            after=text.after,
            after_n=text.after_n,
            counts=text.counts,
            digest=text.digest.close_piece(),
        )
        return text.add(spell_mark(text.after, spell_cursor(cursor, signer)))

    async def _end(self, header: Header, text: _Text) -> bytes:
        """Spell the last line, signed unless this process has another key than the flush."""
        signer, counts = self.signer, text.counts
        keys = await self.reader.keys()
        if signer is not None and keys and all(key["key_id"] != signer.key_id for key in keys):
            signer = None
        digest = text.digest.close_piece()
        statement = spell_statement(header, counts, digest)
        fields = {
            **counts.to_mapping(),
            "digest": digest.hex(),
            "key_id": None if signer is None else signer.key_id,
            "signature": None if signer is None else signer.sign(statement).hex(),
        }
        return spell_line("end", fields)


def request_of(header: Header) -> ExportRequest:
    """Turn a header back into what was asked for; its stretch is known by then."""
    fields: dict[str, Any] = {**header.wanted}
    if "actor_id" in fields:
        fields["actor_id"] = UUID(fields["actor_id"])
    return ExportRequest(
        tenant_id=TenantId(UUID(header.tenant_id)),
        wanted=EventFilter(**fields, since=header.since, until=header.until),
        content=header.content,
        upto_seq=header.upto_seq,
    )


def _spell_checkpoints(checkpoints: Iterable[CheckpointDetails], counts: Counts) -> bytes:
    lines = []
    for details in checkpoints:
        counts.checkpoints += 1
        fields = {**details.signed.to_mapping(), "hash": details.hash.hex()}
        lines.append(spell_line("checkpoint", fields))
    return b"".join(lines)


def _spell_rows(
    rows: Iterable[ChainRow], events: Mapping[int, ExportedEvent], counts: Counts
) -> bytes:
    lines, at, spelled = [], None, ""
    for seq, recorded_at, leaf, row_hash in rows:
        if recorded_at != at:
            at, spelled = recorded_at, spell_instant(recorded_at)
        place = (
            f'"seq":{seq},"recorded_at":"{spelled}",'
            f'"leaf":"{leaf.hex()}","row_hash":"{row_hash.hex()}"'
        )
        if seq not in events:
            counts.others += 1
            lines.append(f'{{"type":"other",{place}}}\n')
            continue
        counts.events += 1
        event = events[seq]
        duration_ms = _encode(event.duration_ms)
        if event.payload is None:
            has_personal = _encode(event.personal is not None)
            lines.append(
                f'{{"type":"own",{place},'
                f'"duration_ms":{duration_ms},"has_personal":{has_personal}}}\n'
            )
            continue
        payload = _encode(event.payload.decode(errors="replace"))
        personal = _encode(event.personal)
        lines.append(
            f'{{"type":"event",{place},"payload":{payload},'
            f'"duration_ms":{duration_ms},"personal":{personal}}}\n'
        )
    return "".join(lines).encode(errors="replace")
