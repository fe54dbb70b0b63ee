"""Checks the rows of a CSV or Parquet export, alone or beside a proof."""

from collections.abc import Iterator, Mapping
from typing import Final

from maas.audit.domain.event import spell_instant
from maas.audit.domain.export import OwnRow
from maas.audit.domain.export_columns import find_row_fault
from maas.audit.domain.findings import Findings, spell_rows

_MAX_DIGITS: Final = 19


class TableCheck:
    """Takes rows in the order of `seq`, their values as text; memory does not grow with them.

    `own` are the events that have to be there, in the same order.
    """

    def __init__(
        self, *, findings: Findings, own: Iterator[OwnRow] | None, is_guarded: bool
    ) -> None:
        self.findings = findings
        self.rows = 0
        self._own = own
        self._is_guarded = is_guarded
        self._last_seq = 0
        self._expected: OwnRow | None = None

    def take(self, values: Mapping[str, str | None]) -> None:
        """Take the next row."""
        self.rows += 1
        text = values["seq"] or ""
        # Digits of other scripts are numbers too, and spelled by nobody here.
        if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
            self.findings.add(self._last_seq, f"row {self.rows}", "its seq is no number")
            return
        seq = int(text)
        if seq <= self._last_seq:
            self.findings.add_row(seq, "it is in the file twice or out of place")
            return
        self._last_seq = seq
        fault = find_row_fault(values, is_guarded=self._is_guarded)
        if fault is None and self._own is not None:
            fault = self._find_unproven(seq, values)
        if fault is not None:
            self.findings.add_row(seq, fault)

    def finish(self) -> None:
        """Say what the proof has beyond the last row."""
        while self._own is not None:
            own = self._next_own()
            if own is None:
                return
            self._miss(own.row[0])

    def _find_unproven(self, seq: int, values: Mapping[str, str | None]) -> str | None:
        """Compare with the proof, up to this row."""
        own = self._next_own()
        while own is not None and own.row[0] < seq:
            self._miss(own.row[0])
            own = self._next_own()
        if own is None or own.row[0] > seq:
            self._expected = own
            return "the proof names no such event of the tenant, unless it is the older file"
        _, recorded_at, leaf, row_hash = own.row
        for name, proven in (
            ("leaf", leaf.hex()),
            ("row_hash", row_hash.hex()),
            ("recorded_at", spell_instant(recorded_at)),
        ):
            if values[name] != proven:
                return f"its column {name} is not what was chained"
        if (values["duration_ms"] or "") != (
            "" if own.duration_ms is None else f"{own.duration_ms}"
        ):
            return "its column duration_ms is not what the proof says"
        if own.has_personal and not values["salt"]:
            # Whoever is erased after a file was made is in the file still.
            return "its personal fields are gone: taken out, or erased after the proof was made"
        return None

    def _next_own(self) -> OwnRow | None:
        own, self._expected = self._expected, None
        if own is None and self._own is not None:
            own = next(self._own, None)
        return own

    def _miss(self, seq: int) -> None:
        self.findings.add(seq, spell_rows(seq, seq), "missing, but the proof names it")
