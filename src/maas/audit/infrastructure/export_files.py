"""Exports as files on a disk: the rows of a table, and where a broken download can go on."""

import csv
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final

from maas.audit.domain.event import spell_instant
from maas.audit.domain.export_columns import COLUMNS, INSTANTS

# A payload has at most a mebibyte, and every quotation mark in it is doubled.
_MAX_FIELD_CHARS: Final = 4 * 1024 * 1024
_MAX_SEQ_CHARS: Final = 20
_CURSOR: Final = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)


class UnreadableTableError(ValueError):
    """This is no CSV or Parquet file with the columns of an export."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How much of a file to keep, and what to send for the rest; nothing if it is too little."""

    size: int
    go_on: str | None
    is_whole: bool = False


def read_csv(path: Path) -> Iterator[dict[str, str | None]]:
    """Go through the rows of an export.

    Raises:
        UnreadableTableError: it is another file, or was cut off within a row.
        OSError: it cannot be opened.
    """
    csv.field_size_limit(_MAX_FIELD_CHARS)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, strict=True)
            if next(rows, None) != list(COLUMNS):
                raise UnreadableTableError("its first row does not name the columns")
            for row in rows:
                if len(row) != len(COLUMNS):
                    raise UnreadableTableError("a row has another number of columns")
                yield dict(zip(COLUMNS, row, strict=True))
    except (csv.Error, UnicodeDecodeError) as exc:
        raise UnreadableTableError(f"it is no CSV in UTF-8: {exc}") from exc


def read_parquet(path: Path) -> Iterator[dict[str, str | None]]:
    """Go through the rows of an export, as text.

    Raises:
        UnreadableTableError: it is another file, or was cut off.
        OSError: it cannot be opened.
    """
    # By name, for it imports pyarrow, which takes a while.
    parquet = resolve_name("maas.audit.infrastructure.parquet")
    try:
        for row in parquet.read_parquet(path):
            yield {name: _spell(name, value) for name, value in row.items()}
    except parquet.UnreadableParquetError as exc:
        raise UnreadableTableError(str(exc)) from exc


def find_cut(path: Path) -> Cut:
    """Find the last place a download can go on from.

    Raises:
        UnreadableTableError: it is neither NDJSON nor CSV.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        begin = file.read(len(COLUMNS[0]) + 1)
    if not begin or begin.startswith(b"{"):
        return _find_mark(path)
    if begin == f"{COLUMNS[0]},".encode()[: len(begin)]:
        return _find_row(path)
    raise UnreadableTableError("neither NDJSON nor CSV")


def cut_off(path: Path, size: int) -> None:
    os.truncate(path, size)


def _spell(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return spell_instant(value) if name in INSTANTS else str(value)


def _find_mark(path: Path) -> Cut:
    cut, size = Cut(size=0, go_on=None), 0
    with path.open("rb") as file:
        for line in file:
            size += len(line)
            if not line.endswith(b"\n"):
                break
            if line.startswith(b'{"type":"mark"'):
                cut = Cut(size=size, go_on=_cursor_of(line))
            elif line.startswith(b'{"type":"end"'):
                return Cut(size=size, go_on=None, is_whole=True)
    return cut


def _cursor_of(line: bytes) -> str:
    try:
        cursor = str(json.loads(line)["cursor"])
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise UnreadableTableError("a mark has no cursor") from exc
    # It is printed, and sent in a URL.
    if _CURSOR.fullmatch(cursor) is None:
        raise UnreadableTableError("a mark has no cursor")
    return cursor


def _find_row(path: Path) -> Cut:
    """Find the last whole row: it ends with a line's end outside quotation marks."""
    size, is_quoted, head, cut = 0, False, b"", Cut(size=0, go_on=None)
    with path.open("rb") as file:
        for line in file:
            if not is_quoted:
                head = line[:_MAX_SEQ_CHARS].partition(b",")[0]
            size += len(line)
            is_quoted ^= line.count(b'"') % 2 == 1
            if not is_quoted and line.endswith(b"\r\n") and head.isdigit():
                cut = Cut(size=size, go_on=head.decode())
    return cut
