"""Rows of a table: any text comes back from CSV and Parquet, and no change of one goes unseen."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maas.audit.application.export_ports import ExportedEvent, ExportPage
from maas.audit.application.export_tables import spell_csv, spell_csv_rows, tabulate_rows
from maas.audit.domain.chain import GENESIS, leaf_of, micros, row_hash
from maas.audit.domain.chain_check import ChainRow
from maas.audit.domain.event import SALT_BYTES, AuditEvent, PersonalFields
from maas.audit.domain.export import OwnRow
from maas.audit.domain.export_columns import COLUMNS, find_row_fault
from maas.audit.domain.export_table_check import TableCheck
from maas.audit.domain.findings import Findings
from maas.audit.infrastructure.export_files import (
    UnreadableTableError,
    cut_off,
    find_cut,
    read_csv,
    read_parquet,
)
from maas.audit.infrastructure.parquet import ParquetText
from maas.shared.domain.ids import DEFAULT_TENANT_ID, EventId, new_id
from maas.shared.domain.spreadsheet import harmless

# Beside others at work, hypothesis takes longer than a unit test may.
pytestmark = pytest.mark.timeout(120)

AT = datetime(2026, 3, 7, 8, 9, 10, 123456, tzinfo=UTC)
ODD = (
    "=1+1", "+x", "-1", "@a", "＝1", '"', '""', "a,b", "a\r\nb", "a\nb", "\r", "王小明", "'=x", "'",  # noqa: RUF001  full-width, meant
    "", " =1", "\t1", "é\u0301", "\u2028", "\ufeff", "\ufeff=1", "\u00a0+1", "\u3000-1",
    "\u200b@a", "\v=1", " \u202e=1",
)  # fmt: skip
# NUL and surrogates never get into an event.
TEXTS = st.one_of(
    st.sampled_from(ODD), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
)

_UNSEEN = dict.fromkeys(
    map(ord, " \v\f\0\x1f\x7f\x85\xa0\xad\u1680\u2003\u200b\u200e\u2028\u202e\u2060\u3000\ufeff")
)

Row = Mapping[str, str | None]


def make_page(events: Sequence[AuditEvent], *, is_erased: bool = False) -> ExportPage:
    rows: list[ChainRow] = []
    exported: dict[int, ExportedEvent] = {}
    last = GENESIS
    for seq, event in enumerate(events, start=1):
        payload = event.payload()
        leaf = leaf_of(payload)
        last = row_hash(last, seq=seq, recorded_micros=micros(AT), leaf=leaf)
        rows.append((seq, AT, leaf, last))
        personal = None if is_erased else event.personal.to_mapping()
        exported[seq] = ExportedEvent(payload=payload, duration_ms=seq, personal=personal)
    return ExportPage(rows=rows, events=exported, checkpoints=[])


def make_event(text: str = "x", other: str = "y") -> AuditEvent:
    return AuditEvent(
        id=EventId(new_id()),
        occurred_at=AT,
        tenant_id=DEFAULT_TENANT_ID,
        actor_kind="account",
        actor_id=new_id(),
        action="model.created",
        outcome="success",
        request_id=other,
        resource_kind="model",
        resource_id=text,
        reason=text,
        before={"name": text},
        after={"name": other, "tags": [text, other]},
        personal=PersonalFields(
            salt=bytes(SALT_BYTES), actor_name=text, email=other, user_agent=text
        ),
    )


def spell_rows_of(page: ExportPage, seq: int | None = None) -> bytes:
    rows = [row for row in page.rows if seq in {None, row[0]}]
    return spell_csv_rows(tabulate_rows(rows, page.events))


def make_csv(page: ExportPage) -> bytes:
    return spell_csv([COLUMNS]) + spell_rows_of(page)


def sent(page: ExportPage) -> list[Sequence[Any]]:
    """List the rows as the process that writes Parquet gets them."""
    rows: list[Sequence[Any]] = json.loads(json.dumps(tabulate_rows(page.rows, page.events)))
    return rows


def make_parquet(page: ExportPage) -> bytes:
    text = ParquetText({"v": 1})
    return text.add(sent(page)) + text.finish()


def rows_of(text: bytes, suffix: str) -> list[dict[str, str | None]]:
    with TemporaryDirectory() as folder:
        path = Path(folder, f"audit{suffix}")
        path.write_bytes(text)
        return list(read_csv(path) if suffix == ".csv" else read_parquet(path))


def own_rows(page: ExportPage) -> list[OwnRow]:
    own = ((row, page.events[row[0]]) for row in page.rows if row[0] in page.events)
    return [OwnRow(row, event.duration_ms, event.personal is not None) for row, event in own]


def faults_of(rows: Sequence[Row], page: ExportPage | None, *, is_guarded: bool) -> list[str]:
    own = None if page is None else iter(own_rows(page))
    check = TableCheck(findings=Findings(), own=own, is_guarded=is_guarded)
    for row in rows:
        check.take(row)
    check.finish()
    return [f"{finding.subject}: {finding.what}" for finding in check.findings]


@settings(max_examples=80, deadline=None)
@given(text=TEXTS, other=TEXTS, is_erased=st.booleans())
def test_any_text_comes_back_from_csv(text: str, other: str, is_erased: bool) -> None:  # noqa: FBT001  hypothesis passes it by name
    page = make_page([make_event(text, other), make_event(other, text)], is_erased=is_erased)

    rows = rows_of(make_csv(page), ".csv")

    assert faults_of(rows, page, is_guarded=True) == []
    payloads = [(event.payload or b"").decode() for event in page.events.values()]
    assert [row["payload"] for row in rows] == payloads


@settings(max_examples=30, deadline=None)
@given(text=TEXTS, other=TEXTS, is_erased=st.booleans())
def test_any_text_comes_back_from_parquet(text: str, other: str, is_erased: bool) -> None:  # noqa: FBT001  hypothesis passes it by name
    event = make_event(text, other)
    page = make_page([event], is_erased=is_erased)

    (row,) = rows_of(make_parquet(page), ".parquet")

    assert faults_of([row], page, is_guarded=False) == []
    assert row["resource_id"] == json.loads(event.payload())["resource"]["id"]
    assert row["actor_name"] == (None if is_erased else event.personal.actor_name)
    assert row["occurred_at"] == "2026-03-07T08:09:10.123456Z"


@given(text=TEXTS)
def test_no_cell_of_csv_is_a_formula(text: str) -> None:
    content = spell_rows_of(make_page([make_event(text, text)])).decode()

    for cell in next(csv.reader(io.StringIO(content, newline=""), strict=True)):
        visible = cell.translate(_UNSEEN)
        assert not visible.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠"))  # noqa: RUF001  meant
        assert not cell.lstrip(" ").startswith(("\t", "\r", "\n"))


@pytest.mark.parametrize("unseen", sorted(chr(code) for code in _UNSEEN))
def test_nothing_unseen_hides_a_formula(unseen: str) -> None:
    for text in (f"{unseen}=1", f" {unseen}{unseen} ＋1"):  # noqa: RUF001  full-width, meant
        assert harmless(text) == f"'{text}"
    assert harmless(f"a{unseen}=1") == f"a{unseen}=1"


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("value", ["", "7", "x", "'x"])
def test_a_changed_cell_is_found(name: str, value: str) -> None:
    page = make_page([make_event(), make_event()])
    rows = rows_of(make_csv(page), ".csv")
    rows[1][name] = value if rows[1][name] != value else "z"

    assert faults_of(rows, page, is_guarded=False)


def _swapped(rows: list[Row]) -> list[Row]:
    return [rows[1], rows[0], rows[2]]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda rows: rows[1:], "row 1: missing, but the proof names it"),
        (lambda rows: [rows[0], rows[2]], "row 2: missing, but the proof names it"),
        (lambda rows: rows[:2], "row 3: missing, but the proof names it"),
        (lambda _: [], "row 1: missing, but the proof names it"),
        (lambda rows: [*rows, rows[2]], "row 3: it is in the file twice or out of place"),
        (_swapped, "row 1: it is in the file twice or out of place"),
        (lambda rows: [*rows, {**rows[2], "seq": "4"}], "row 4: the proof names no such event"),
        (lambda rows: [rows[0], {**rows[1], "seq": "٢"}], "row 2: its seq is no number"),
    ],
)
def test_a_row_that_is_missing_or_too_much_is_found(
    change: Callable[[list[Row]], list[Row]], found: str
) -> None:
    page = make_page([make_event() for _ in range(3)])
    rows: list[Row] = [*rows_of(make_csv(page), ".csv")]

    faults = faults_of(change(rows), page, is_guarded=True)

    assert any(fault.startswith(found) for fault in faults), faults


def test_without_a_proof_rows_are_held_against_their_payloads() -> None:
    (row,) = rows_of(make_csv(make_page([make_event()])), ".csv")

    assert find_row_fault(row, is_guarded=True) is None
    assert faults_of([row], None, is_guarded=True) == []
    assert find_row_fault({**row, "payload": "{"}, is_guarded=True) is not None
    assert find_row_fault({**row, "outcome": "denied"}, is_guarded=True) is not None


def test_csv_cut_anywhere_goes_on_behind_its_last_whole_row(tmp_path: Path) -> None:
    page = make_page([make_event('a"\r\n3,"', "\r\n") for _ in range(3)])
    whole, path = make_csv(page), tmp_path / "audit.csv"
    rows = [spell_rows_of(page, seq) for seq in (1, 2, 3)]
    assert whole == spell_csv([COLUMNS]) + b"".join(rows)
    for size in (*range(0, len(whole), 17), *range(len(whole) - 9, len(whole) + 1)):
        path.write_bytes(whole[:size])
        cut = find_cut(path)
        if cut.go_on is None:
            assert size < len(whole) - len(rows[1]) - len(rows[2])
            continue
        cut_off(path, cut.size)
        assert path.read_bytes() + b"".join(rows[int(cut.go_on) :]) == whole


def test_parquet_of_many_rows_comes_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maas.audit.infrastructure.parquet.ROWS_OF_A_GROUP", 4)
    page = make_page([make_event() for _ in range(10)])
    rows = sent(page)
    text = ParquetText({"v": 1})

    parts = [text.add(rows[begin : begin + 2]) for begin in range(0, 10, 2)]

    assert [bool(part) for part in parts[1:]] == [True, False, True, False]
    assert (
        faults_of(rows_of(b"".join(parts) + text.finish(), ".parquet"), page, is_guarded=False)
        == []
    )


def test_parquet_of_nothing_is_a_file_too() -> None:
    assert rows_of(make_parquet(make_page([])), ".parquet") == []


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".csv", b""),
        (".csv", b"id,name\r\n"),
        (".csv", b"\xff\xfe"),
        (".csv", ",".join(COLUMNS).encode() + b"\r\n1,2\r\n"),
        (".csv", ",".join(COLUMNS).encode() + b'\r\n"1'),
        (".parquet", b""),
        (".parquet", b"PAR1PAR1"),
    ],
)
def test_what_is_no_table_of_ours_is_refused(suffix: str, text: bytes) -> None:
    with pytest.raises(UnreadableTableError):
        rows_of(text, suffix)


def test_a_parquet_file_that_was_cut_off_is_refused() -> None:
    with pytest.raises(UnreadableTableError):
        rows_of(make_parquet(make_page([make_event()]))[:-1], ".parquet")


def test_what_is_neither_lines_nor_csv_cannot_go_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.parquet"
    path.write_bytes(b"PAR1")

    with pytest.raises(UnreadableTableError):
        find_cut(path)
