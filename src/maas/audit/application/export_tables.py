"""The same events as CSV or Parquet: for spreadsheets and data frames, row by row as in the log."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from maas.audit.application.export import request_of
from maas.audit.application.export_ports import (
    PAGE_ROWS,
    ExportPage,
    ExportReader,
    PageRequest,
)
from maas.audit.domain.event import spell_instant
from maas.audit.domain.export import Header
from maas.audit.domain.export_columns import COLUMNS, INSTANTS, TableRow, tabulate
from maas.shared.domain.errors import UnavailableError
from maas.shared.domain.spreadsheet import harmless

_INSTANTS: Final = tuple(COLUMNS.index(name) for name in sorted(INSTANTS))


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
        async for page in self._pages(header, after_seq):
            yield await asyncio.to_thread(spell_csv_page, page)

    async def parquet(self, header: Header, *, after_seq: int | None) -> AsyncIterator[bytes]:
        """Spell one whole Parquet file; what goes on after a row is the next file of a data set."""
        async with self.open_encoder(header) as encoder:
            async for page in self._pages(header, after_seq):
                yield await encoder.add(await asyncio.to_thread(tabulate_page, page))
            yield await encoder.finish()

    async def _pages(self, header: Header, after_seq: int | None) -> AsyncIterator[ExportPage]:
        request, after = request_of(header), max(header.start.seq - 1, after_seq or 0)
        while after < header.seq_to:
            wanted = PageRequest(after=after, upto=header.seq_to, limit=self.page_rows)
            page = await self.reader.page(request, wanted)
            after = page.rows[-1][0] if page.rows else header.seq_to
            yield page


def tabulate_page(page: ExportPage) -> list[TableRow]:
    rows = []
    for row in page.rows:
        event = page.events.get(row[0])
        if event is not None:
            rows.append(
                tabulate(
                    row,
                    payload=event.payload,
                    duration_ms=event.duration_ms,
                    personal=event.personal,
                )
            )
    return rows


def spell_csv_page(page: ExportPage) -> bytes:
    return spell_csv(_spell_row(row) for row in tabulate_page(page))


def _spell_row(row: TableRow) -> Sequence[Any]:
    values = list(row)
    for index in _INSTANTS:
        values[index] = spell_instant(values[index])
    return [harmless(value) if isinstance(value, str) else value for value in values]


def spell_csv(rows: Iterable[Sequence[Any]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerows(rows)
    return buffer.getvalue().encode(errors="replace")
