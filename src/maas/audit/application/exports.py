"""What a tenant may have exported: which events, in which format, and from where on."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, assert_never

from maas.audit.application.export import ExportService, request_of
from maas.audit.application.export_ports import ExportRequest
from maas.audit.application.export_slots import ExportSlots
from maas.audit.application.export_tables import TableService
from maas.audit.domain.export import Header
from maas.audit.public import AuditedResource, ChangeValue, current_scope
from maas.shared.domain.errors import InvalidInputError

ExportFormat: TypeAlias = Literal["ndjson", "csv", "parquet"]

AUDIT_LOG: Final = AuditedResource(
    "audit_log",
    frozenset(
        {"format", "content", "since", "until", "filter", "upto_seq", "after_seq", "is_continued"}
    ),
)


class ExportOptionsError(InvalidInputError):
    code = "export-options-conflict"
    title = "These options of an export do not go together"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOrder:
    """An export, or the rest of one: behind a cursor (lines) or a row (tables)."""

    request: ExportRequest
    format: ExportFormat = "ndjson"
    cursor: str | None = None
    after_seq: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedExport:
    """The bytes to come; `seq_to` is the last row of the log that they take into account."""

    chunks: AsyncIterator[bytes]
    seq_to: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """Opens exports; each says in the trail what was asked for before its first byte is sent."""

    lines: ExportService
    tables: TableService
    slots: ExportSlots

    async def open(self, order: ExportOrder) -> OpenedExport:
        """Find what is wanted, and begin.

        Raises:
            ExportOptionsError: the format knows no such option.
            ExportCursorError: the cursor is none, another tenant's, or too old.
        """
        _check(order)
        tenant_id = order.request.tenant_id
        current_scope().change(AUDIT_LOG, tenant_id, after=_spell_order(order))
        if order.cursor is not None:
            read = self.lines.read_cursor(tenant_id, order.cursor)
            asked = replace(order, request=request_of(read.header), after_seq=read.after)
            current_scope().change(AUDIT_LOG, tenant_id, after=_spell_order(asked))
            chunks = self.lines.resume(read, order.cursor)
            return OpenedExport(chunks=chunks, seq_to=read.header.seq_to)
        header = await self.lines.begin(order.request)
        return OpenedExport(chunks=self._begin(order, header), seq_to=header.seq_to)

    def _begin(self, order: ExportOrder, header: Header) -> AsyncIterator[bytes]:
        match order.format:
            case "ndjson":
                return self.lines.lines(header)
            case "csv":
                return self.tables.csv(header, after_seq=order.after_seq)
            case "parquet":
                return self.tables.parquet(header, after_seq=order.after_seq)
            case _:
                assert_never(order.format)


def _check(order: ExportOrder) -> None:
    request, is_lines = order.request, order.format == "ndjson"
    if order.cursor is not None:
        is_alone = (
            is_lines and request == ExportRequest(tenant_id=request.tenant_id)
        ) and order.after_seq is None
        if not is_alone:
            raise ExportOptionsError(
                "A cursor knows what was asked for: send it alone, with `format=ndjson` or none.",
                loc=("query", "cursor"),
            )
    if is_lines and order.after_seq is not None:
        raise ExportOptionsError(
            "NDJSON goes on at a mark's `cursor`; `after_seq` is for CSV and Parquet.",
            loc=("query", "after_seq"),
        )
    if not is_lines and request.content != "full":
        raise ExportOptionsError(
            "`content=proof` is for NDJSON; CSV and Parquet are the events themselves.",
            loc=("query", "content"),
        )
    since, until = request.wanted.since, request.wanted.until
    if since is not None and until is not None and since >= until:
        raise ExportOptionsError("`until` is not after `since`.", loc=("query", "until"))


def _spell_order(order: ExportOrder) -> Mapping[str, ChangeValue]:
    request = order.request
    since, until = request.wanted.since, request.wanted.until
    wanted: Sequence[str] = [f"{name}={value}" for name, value in request.filters.items()]
    return {
        "format": order.format,
        "content": request.content,
        "since": None if since is None else since.isoformat(),
        "until": None if until is None else until.isoformat(),
        "filter": wanted,
        "upto_seq": request.upto_seq,
        "after_seq": order.after_seq,
        "is_continued": order.cursor is not None or order.after_seq is not None,
    }
