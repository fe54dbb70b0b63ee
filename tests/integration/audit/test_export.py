"""A tenant's export: all of its events, nobody else's, and proof of both."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from maas.audit.application.export import ExportService
from maas.audit.domain.export import MalformedExportError
from maas.audit.domain.export_check import ExportCheck
from maas.audit.infrastructure.signing import Ed25519Signer, is_signed_by
from maas.audit.wiring import AuditContext
from maas.shared.domain.ids import new_id
from tests.integration.audit.conftest import FakeAuthenticator
from tests.integration.audit.exporting import (
    OTHER_TENANT,
    asked,
    check_of,
    first,
    kinds,
    lines_of,
    spelled,
)
from tests.integration.audit.exporting import exports as exports  # noqa: PLC0414  a fixture, reused
from tests.integration.audit.exporting import recorded as recorded  # noqa: PLC0414  likewise
from tests.integration.audit.exporting import signer as signer  # noqa: PLC0414  likewise
from tests.integration.audit.helpers import Trail, names

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

EXPORT = "/api/v1/audit/logs/export"


async def test_over_http_it_is_whole_and_leaves_an_event(
    client: httpx.AsyncClient, recorded: Trail, signer: Ed25519Signer
) -> None:
    answer = await client.get(EXPORT, params={"format": "ndjson"})

    lines = answer.content.splitlines(keepends=True)
    check = check_of(lines, signer)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert not check.findings
    assert check.is_attested
    assert kinds(lines) == {
        "header": 1, "key": 1, "checkpoint": 4, "event": 20, "other": 10, "end": 1,
    }  # fmt: skip
    (entry,) = await recorded.entries()
    assert b'"action":"audit.exported"' in entry[1][b"payload"]


async def test_holds_the_tenants_events_and_of_others_only_hashes(
    recorded: Trail, exports: ExportService
) -> None:
    lines = [json.loads(line) for line in await lines_of(exports, asked(OTHER_TENANT))]

    own = [json.loads(line["payload"]) for line in lines if line["type"] == "event"]
    assert {event["tenant_id"] for event in own} == {str(OTHER_TENANT)}
    assert [event["id"] for event in own] == (await recorded.logged())[2::3]
    assert {frozenset(line) for line in lines if line["type"] == "other"} == {
        frozenset({"type", "seq", "recorded_at", "leaf", "row_hash"})
    }


async def test_pages_of_any_size_hold_together(
    recorded: Trail, exports: ExportService, signer: Ed25519Signer
) -> None:
    for size in (1, 3, 8, 29, 30, 500):
        lines = await lines_of(replace(exports, page_rows=size))

        check = check_of(lines, signer)
        assert not check.findings, (size, list(check.findings))
        assert (check.counts.events, check.counts.others) == (20, 10)


async def test_after_an_erasure_it_still_holds(
    recorded: Trail, exports: ExportService, signer: Ed25519Signer
) -> None:
    await recorded.superuser.execute("DELETE FROM audit_personal")

    lines = await lines_of(exports)

    assert not check_of(lines, signer).findings
    assert {line["personal"] for line in map(json.loads, lines) if line["type"] == "event"} == {
        None
    }


async def test_of_nothing_is_whole_too(
    audit: AuditContext, exports: ExportService, signer: Ed25519Signer
) -> None:
    lines = await lines_of(exports)

    assert not check_of(lines, signer).findings
    assert kinds(lines) == {"header": 1, "end": 1}


async def test_of_what_came_after_its_beginning_nothing_is_in_it(
    recorded: Trail, exports: ExportService, signer: Ed25519Signer
) -> None:
    header = await exports.begin(asked())
    chunks = exports.lines(header)
    content = await anext(chunks)
    late = recorded.make()
    await recorded.add(late)
    await recorded.flush().run()
    content += b"".join([chunk async for chunk in chunks])

    assert not check_of(content.splitlines(keepends=True), signer).findings
    assert names(late)[0].encode() not in content


async def test_with_another_key_than_the_flush_it_is_not_signed(
    recorded: Trail, exports: ExportService, signer: Ed25519Signer
) -> None:
    lines = await lines_of(replace(exports, signer=Ed25519Signer(bytes(32))))

    check = check_of(lines, signer)
    assert not check.findings
    assert not check.is_attested


Change = Callable[[list[dict[str, Any]]], object]


def passed_off(lines: list[dict[str, Any]]) -> None:
    """Make an event of the tenant one of another's."""
    event = next(line for line in lines if line["type"] == "event")
    for name in ("payload", "personal", "duration_ms"):
        del event[name]
    event["type"] = "other"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda lines: first(lines, "event").update(payload='{"id":1}'), "its payload is not"),
        (lambda lines: first(lines, "event")["personal"].update(email="x@y.z"), "field email"),
        (lambda lines: first(lines, "event").update(leaf="00" * 32), "its payload is not"),
        (lambda lines: first(lines, "other").update(leaf="00" * 32), "does not follow"),
        (lambda lines: lines.remove(first(lines, "other")), "missing from the chain"),
        (lambda lines: first(lines, "checkpoint").update(n=9), "checkpoints 1 to 8"),
        (lambda lines: first(lines, "end").update(events=1), "its counts"),
        (lambda lines: first(lines, "mark").update(cursor="x.y"), "its digest"),
        (lambda lines: lines.remove(first(lines, "mark")), "its digest"),
        (lambda lines: first(lines, "key").update(first_seq=2), "its digest"),
        (lambda lines: first(lines, "header").update(filter={"action": "x"}), "its digest"),
        (lambda lines: first(lines, "header").update(seq_to=22), "the chain ends at row 30"),
        (lambda lines: first(lines, "header")["start"].update(row_hash="01" * 32), "no other"),
        (lambda lines: lines.pop(), "the last line is missing"),
        (lambda lines: first(lines, "header").update(tenant_id=str(new_id())), "another tenant's"),
        (passed_off, "its counts or its digest"),
    ],
)
async def test_a_change_is_found(
    recorded: Trail, exports: ExportService, signer: Ed25519Signer, change: Change, found: str
) -> None:
    lines = [json.loads(line) for line in await lines_of(exports)]
    change(lines)

    findings = check_of(spelled(lines), signer).findings

    assert any(found in f"{each.subject} {each.what}" for each in findings), list(findings)


@pytest.mark.parametrize(
    "line", [b"", b"[]", b'{"type":"event"}', b'{"type":"x"}', b'{"type":"header","v":2}', b"\xff"]
)
def test_what_is_no_line_is_refused(line: bytes, signer: Ed25519Signer) -> None:
    with pytest.raises(MalformedExportError):
        ExportCheck(keys={}, is_signed=is_signed_by).take(line)


async def test_needs_its_own_permission(
    client: httpx.AsyncClient, authenticator: FakeAuthenticator
) -> None:
    authenticator.permissions = frozenset({"audit:read"})

    assert (await client.get(EXPORT)).status_code == 403
    assert (await client.get(EXPORT, params={"format": "xlsx"})).status_code in (403, 422)
