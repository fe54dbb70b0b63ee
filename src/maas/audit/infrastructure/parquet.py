"""The columns of an export as Parquet. Only a process that needs Parquet imports this module."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
from pyarrow import parquet as pq

from maas.audit.domain.export_columns import COLUMNS, INSTANTS, NUMBERS

ROWS_OF_A_GROUP: Final = 5_000
BYTES_OF_A_GROUP: Final = 8 * 1024 * 1024
HEADER_KEY: Final = b"maas.audit.export"

_INSTANT: Final = pa.timestamp("us", tz="UTC")
_TYPES: Final = {
    **dict.fromkeys(COLUMNS, pa.string()),
    **dict.fromkeys(INSTANTS, _INSTANT),
    **dict.fromkeys(NUMBERS, pa.int64()),
}
# Of these every value is another one.
_UNLIKE: Final = frozenset({"seq", "id", "salt", "payload", "leaf", "row_hash", "duration_ms"})


class UnreadableParquetError(ValueError):
    """This is no Parquet file with the columns of an export."""


def use_one_core() -> None:
    """Leave the other cores to the requests beside an export."""
    pa.set_cpu_count(1)


class ParquetText:
    """Writes rows as they come, group by group; memory holds the rows of one group."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        metadata = {HEADER_KEY: json.dumps(header, ensure_ascii=False).encode()}
        self._schema = pa.schema([(name, _TYPES[name]) for name in COLUMNS], metadata=metadata)
        self._pool = pa.system_memory_pool()
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"),
            self._schema,
            compression="zstd",
            use_dictionary=[name for name in COLUMNS if name not in _UNLIKE],
            memory_pool=self._pool,
        )
        self._batches: list[Any] = []
        self._rows = self._bytes = 0

    def add(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """Take rows, their times as texts; return what can be sent."""
        if rows:
            # As Arrow has them, texts take a third of what they take as objects.
            batch = self._to_batch(rows)
            self._batches.append(batch)
            self._rows += len(rows)
            self._bytes += batch.nbytes
        if self._rows >= ROWS_OF_A_GROUP or self._bytes >= BYTES_OF_A_GROUP:
            self._write_group()
        return self._sink.take()

    def finish(self) -> bytes:
        if self._batches:
            self._write_group()
        self._writer.close()
        return self._sink.take()

    def _to_batch(self, rows: Sequence[Sequence[Any]]) -> Any:
        columns = [
            pa.array(_read(field.name, values), type=field.type, memory_pool=self._pool)
            for field, values in zip(self._schema, zip(*rows, strict=True), strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _write_group(self) -> None:
        table = pa.Table.from_batches(self._batches, schema=self._schema)
        self._batches, self._rows, self._bytes = [], 0, 0
        self._writer.write_table(table)


def _read(name: str, values: Sequence[Any]) -> Sequence[Any]:
    return list(map(datetime.fromisoformat, values)) if name in INSTANTS else values


class _Sink:
    """A file for the writer, of which nothing is kept."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, part: bytes) -> int:
        self._parts.append(bytes(part))
        self._size += len(part)
        return len(part)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        text, self._parts = b"".join(self._parts), []
        return text


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Go through the rows of an export, with aware times.

    Raises:
        UnreadableParquetError: it is another file, or it was cut off.
        OSError: it cannot be opened.
    """
    try:
        with pq.ParquetFile(path) as file:
            if file.schema_arrow.names != list(COLUMNS):
                raise UnreadableParquetError("it has not the columns of an export")
            for batch in file.iter_batches(batch_size=1_000):
                yield from _to_rows(batch)
    except pa.ArrowException as exc:
        raise UnreadableParquetError("it is no Parquet file, or it was cut off") from exc


def _to_rows(batch: Any) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, ArithmeticError) as exc:
        raise UnreadableParquetError("it has a time that no event has") from exc
    return rows
