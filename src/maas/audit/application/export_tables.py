"""The same events as CSV or Parquet: for spreadsheets and data frames, row by row as in the log."""

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from maas.audit.application.export import request_of
from maas.audit.application.export_ports import (
    PAGE_ROWS,
    ExportedEvent,
    ExportReader,
    PageRequest,
    in_slices,
)
from maas.audit.domain.chain_check import ChainRow
from maas.audit.domain.export import Header
from maas.audit.domain.export_columns import COLUMNS, TableRow, tabulate
from maas.shared.domain.errors import UnavailableError
from maas.shared.domain.spreadsheet import harmless


class ParquetEncoder(Protocol):
    """Takes rows and gives the bytes of a Parquet file, by and by."""

    async def add(self, rows: Sequence[TableRow]) -> bytes: ...

    async def finish(self) -> bytes:
        """Return the rest of the file; without this call there is no readable one."""
        ...


OpenEncoder: TypeAlias = Callable[[Header], AbstractAsyncContextManager[ParquetEncoder]]


class ParquetUnavailableError(UnavailableError):
    code = "export-parquet-unavailable"
    title = "Parquet cannot be written at the moment"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableService:
    """Reads as the export of lines does, page by page; `open_encoder` writes Parquet.

    The rows come in the order of `seq`, so that whoever was cut off asks for those after the last
    they have.
    """

    reader: ExportReader
    open_encoder: OpenEncoder
    page_rows: int = PAGE_ROWS

    async def csv(self, header: Header, *, after_seq: int | None) -> AsyncIterator[bytes]:
        """Spell CSV (RFC 4180, UTF-8); what goes on after a row begins without names."""
        if after_seq is None:
            yield spell_csv([COLUMNS])
        async for rows in self._rows(header, after_seq):
            yield spell_csv_rows(rows)

    async def parquet(self, header: Header, *, after_seq: int | None) -> AsyncIterator[bytes]:
        """Spell one whole Parquet file; what goes on after a row is the next file of a data set."""
        async with self.open_encoder(header) as encoder:
            async for rows in self._rows(header, after_seq):
                yield await encoder.add(rows)
            yield await encoder.finish()

    async def _rows(
        self, header: Header, after_seq: int | None
    ) -> AsyncIterator[Sequence[TableRow]]:
        request, after = request_of(header), max(header.start.seq - 1, after_seq or 0)
        while after < header.seq_to:
            wanted = PageRequest(after=after, upto=header.seq_to, limit=self.page_rows)
            page = await self.reader.page(request, wanted)
            async for rows in in_slices(page.rows):
                yield tabulate_rows(rows, page.events)
            after = page.rows[-1][0] if page.rows else header.seq_to


def tabulate_rows(rows: Iterable[ChainRow], events: Mapping[int, ExportedEvent]) -> list[TableRow]:
    own = ((row, events.get(row[0])) for row in rows)
    return [
        tabulate(row, payload=event.payload, duration_ms=event.duration_ms, personal=event.personal)
        for row, event in own
        if event is not None and event.payload is not None
    ]


def spell_csv_rows(rows: Iterable[TableRow]) -> bytes:
    return spell_csv(
        [harmless(value) if isinstance(value, str) else value for value in row] for row in rows
    )


def spell_csv(rows: Iterable[Sequence[object]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerows(rows)
    return buffer.getvalue().encode(errors="replace")
