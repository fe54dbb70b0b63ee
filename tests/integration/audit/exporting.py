"""Exports as tests ask for them: as lines, whole or continued, and checked."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import pytest

from maas.audit.application.export import ExportService
from maas.audit.application.export_ports import ExportRequest
from maas.audit.application.exports import Exports
from maas.audit.application.queries import EventFilter
from maas.audit.domain.export import Digest
from maas.audit.domain.export_check import ExportCheck
from maas.audit.infrastructure.signing import Ed25519Signer, is_signed_by
from maas.audit.public import Actor
from maas.audit.wiring import AuditContext, load_configured_signer
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.infrastructure.settings import Settings
from tests.integration.audit.helpers import Trail

OTHER_TENANT = TenantId(new_id())


@pytest.fixture
def signer(settings: Settings) -> Ed25519Signer:
    return load_configured_signer(settings)


@pytest.fixture
async def recorded(trail: Trail) -> Trail:
    """Thirty events, two of three of them the default tenant's, under four checkpoints."""
    await trail.add(
        *(
            trail.make(
                tenant_id=OTHER_TENANT if number % 3 == 2 else DEFAULT_TENANT_ID,
                email="ada@example.com",
                actor=Actor("account", new_id(), "Ada Wong-Ünsal 王"),
            )
            for number in range(30)
        )
    )
    await trail.flush(batch_size=8).run()
    return trail


@pytest.fixture
def exports(audit: AuditContext, signer: Ed25519Signer) -> ExportService:
    made = cast("Exports", audit.state["audit_exports"])
    return replace(made.lines, signer=signer, page_rows=7)


def asked(tenant_id: TenantId = DEFAULT_TENANT_ID, **fields: Any) -> ExportRequest:
    """Ask for a tenant's events; `content` and `upto_seq` beside the filters."""
    options = {name: fields.pop(name) for name in ("content", "upto_seq") if name in fields}
    return ExportRequest(tenant_id=tenant_id, wanted=EventFilter(**fields), **options)


async def text_of(exports: ExportService, request: ExportRequest | None = None) -> bytes:
    header = await exports.begin(request or asked())
    return b"".join([chunk async for chunk in exports.lines(header)])


async def lines_of(exports: ExportService, request: ExportRequest | None = None) -> list[bytes]:
    return (await text_of(exports, request)).splitlines(keepends=True)


async def rest_of(exports: ExportService, cursor: str) -> bytes:
    read = exports.read_cursor(DEFAULT_TENANT_ID, cursor)
    return b"".join([chunk async for chunk in exports.resume(read, cursor)])


def check_of(lines: Iterable[bytes], signer: Ed25519Signer) -> ExportCheck:
    check = ExportCheck(keys={signer.key_id: signer.public_key}, is_signed=is_signed_by)
    for line in lines:
        check.take(line)
    check.finish()
    return check


def kinds(lines: Iterable[bytes]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for line in lines:
        kind = json.loads(line)["type"]
        counted[kind] = counted.get(kind, 0) + 1
    return counted


def first(lines: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(line for line in lines if line["type"] == kind)


def spelled(lines: Iterable[dict[str, Any]]) -> list[bytes]:
    return [
        json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        for line in lines
    ]


def with_new_digest(lines: list[dict[str, Any]]) -> list[bytes]:
    """Let the last line say what the file is now, as whoever changed it would."""
    *before, end = lines
    texts, digest = spelled(before), Digest()
    for line, text in zip(before, texts, strict=True):
        if line["type"] == "mark":
            digest.close_piece()
        digest.update(text)
    return [*texts, *spelled([{**end, "digest": digest.close_piece().hex()}])]
