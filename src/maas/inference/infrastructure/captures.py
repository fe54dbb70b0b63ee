"""Captures in PostgreSQL: compressed, sealed to their row, under row-level security."""

import asyncio
import zlib
from collections.abc import Sequence
from typing import Final

import asyncpg

from maas.inference.application.captures import (
    MAX_CAPTURE_BYTES,
    Capture,
    CaptureDetails,
    CaptureId,
    CaptureNotFoundError,
)
from maas.shared.domain.errors import UnavailableError
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest, Position, cut_page
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database, spell_begin
from maas.shared.infrastructure.sealing import SealedApart, Sealer, SecretUnreadableError
from maas.shared.infrastructure.sealing_upkeep import SealedColumn

SEALED: Final = SealedColumn(table="inference_captures", column="sealed")
_CONTENT: Final = "content"

MOST_ON_A_PAGE: Final = 5
"""Their contents are large."""

_LENGTH_BYTES: Final = 4
_FASTEST: Final = 1

# An erasure waits for those who write, and who writes after it sees it.
_JOIN: Final = "SELECT pg_advisory_xact_lock_shared(hashtextextended('maas.captures', 0))"
_KEEP: Final = """
INSERT INTO inference_captures
    (id, tenant_id, account_id, request_id, deployment_id, kind, is_stream, is_whole, captured_at,
     keep_until, sealed, content)
SELECT $1::uuid, $2::uuid, $3::uuid, $4, $5::uuid, $6, $7::boolean, $8::boolean, $9::timestamptz,
       $10::timestamptz, $11::bytea, $12::bytea
WHERE NOT EXISTS (SELECT FROM inference_erasures WHERE account_id = $3)
ON CONFLICT DO NOTHING
"""
LIST: Final = """
SELECT id, account_id, request_id, deployment_id, kind, is_stream, is_whole, captured_at,
       keep_until, sealed, content
FROM inference_captures
WHERE tenant_id = $1 AND request_id = $2 AND keep_until > clock_timestamp()
  AND ($3::timestamptz IS NULL OR (captured_at, id) < ($3, $4::uuid))
ORDER BY captured_at DESC, id DESC LIMIT $5
"""
COUNT: Final = """
SELECT count(*) FROM inference_captures
WHERE tenant_id = $1 AND request_id = $2 AND keep_until > clock_timestamp()
"""

_REFUSED: Final = ("21", "22", "23")
"""Classes of SQLSTATE that speak of what is written; all others may pass."""


class CapturesUnavailableError(UnavailableError):
    code = "captures-unavailable"
    title = "Captures cannot be written at the moment"


class PostgresCaptures:
    """The `CaptureStore` and the `CaptureQueries`."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    async def keep(self, captures: Sequence[Capture]) -> None:
        tenant_id = captures[0].tenant_id
        rows = await asyncio.to_thread(self._rows, captures)
        try:
            async with self._database.acquire() as connection:
                await connection.execute(f"{spell_begin(tenant_id)}; {_JOIN}")
                try:
                    await connection.executemany(_KEEP, rows)
                except BaseException:
                    await connection.execute("ROLLBACK")
                    raise
                await connection.execute("COMMIT")
        except asyncpg.PostgresError as exc:
            if (exc.sqlstate or "").startswith(_REFUSED):
                raise
            raise CapturesUnavailableError from exc
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as exc:
            raise CapturesUnavailableError from exc

    def _rows(self, captures: Sequence[Capture]) -> list[tuple[object, ...]]:
        return [self._row(capture) for capture in captures]

    def _row(self, capture: Capture) -> tuple[object, ...]:
        plain = zlib.compress(_frame(capture.request, capture.answer or b""), _FASTEST)
        place = SEALED.place(capture.id, capture.tenant_id)
        sealed = self._sealer.seal_apart(plain, place, content=_CONTENT)
        return (
            capture.id,
            capture.tenant_id,
            capture.account_id,
            capture.request_id,
            capture.deployment_id,
            capture.kind,
            capture.is_stream,
            capture.is_whole,
            capture.captured_at,
            capture.keep_until,
            sealed.key,
            sealed.content,
        )

    async def list_captures(
        self, caller: Principal, request_id: str, page: PageRequest
    ) -> Page[CaptureDetails]:
        own, limit = caller.tenant_id, min(page.limit, MOST_ON_A_PAGE)
        after = (None, None) if page.after is None else (page.after.at, page.after.id)
        async with self._database.tenant(own) as connection:
            rows = await connection.fetch(LIST, own, request_id, *after, limit + 1)
            total = (
                await connection.fetchval(COUNT, own, request_id) if page.include_total else None
            )
        if not rows and page.after is None:
            raise CaptureNotFoundError
        found = cut_page(rows, limit, total, _position_of)
        items = await asyncio.to_thread(self._open, found.items, own)
        return Page(items=items, next=found.next, total=found.total)

    def _open(self, rows: Sequence[asyncpg.Record], tenant_id: TenantId) -> list[CaptureDetails]:
        return [self._details(row, tenant_id) for row in rows]

    def _details(self, row: asyncpg.Record, tenant_id: TenantId) -> CaptureDetails:
        values = dict(row)
        sealed = SealedApart(key=values.pop("sealed"), content=values.pop("content"))
        place = SEALED.place(row["id"], tenant_id)
        request, answer = _unframe(self._sealer.open_apart(sealed, place, content=_CONTENT))
        # A stream that was cut may end within a character.
        return CaptureDetails(
            **values,
            request=request.decode("utf-8", "replace"),
            answer=answer.decode("utf-8", "replace"),
        )


def _position_of(row: asyncpg.Record) -> Position:
    return Position(at=row["captured_at"], id=CaptureId(row["id"]))


def _frame(request: bytes, answer: bytes) -> bytes:
    return len(request).to_bytes(_LENGTH_BYTES, "big") + request + answer


def _unframe(compressed: bytes) -> tuple[bytes, bytes]:
    """Take apart what `_frame` joined.

    Raises:
        SecretUnreadableError: it is nothing of ours.
    """
    unpacking = zlib.decompressobj()
    try:
        plain = unpacking.decompress(compressed, MAX_CAPTURE_BYTES + _LENGTH_BYTES)
    except zlib.error:
        raise SecretUnreadableError from None
    end = _LENGTH_BYTES + int.from_bytes(plain[:_LENGTH_BYTES], "big")
    return plain[_LENGTH_BYTES:end], plain[end:]
