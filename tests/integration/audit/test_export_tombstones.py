"""An export over months of which events were dropped says so, and still proves itself."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maas.audit.application.export import ExportService
from maas.audit.infrastructure.signing import Ed25519Signer
from maas.audit.retention_wiring import retain
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.settings import Settings
from tests.conftest import MakeSettings
from tests.integration.audit.exporting import (
    OTHER_TENANT,
    asked,
    check_of,
    first,
    kinds,
    lines_of,
    spelled,
    with_new_digest,
)
from tests.integration.audit.exporting import exports as exports  # noqa: PLC0414  a fixture, reused
from tests.integration.audit.exporting import signer as signer  # noqa: PLC0414  likewise
from tests.integration.audit.helpers import Trail
from tests.integration.audit.old_events import drop_old_partitions, record_ago

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def kept(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """Settings under which usage goes after thirty days, and all else stays."""
    audit = {"retention_days_usage": 30, "archive_dir": str(tmp_path / "archive")}
    return make_settings(audit=audit)


@pytest.fixture
async def aged(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trail]:
    """Twelve events of months ago, and of today, a half of them usage and a half another's."""
    for days in (150, 0):
        events = [
            trail.make(
                "usage.settled" if number % 2 else "model.created",
                tenant_id=OTHER_TENANT if number >= 6 else DEFAULT_TENANT_ID,
            )
            for number in range(12)
        ]
        await record_ago(trail, monkeypatch, *events, days=days)
    yield trail
    await drop_old_partitions(trail.superuser)


async def test_what_was_dropped_is_named(
    aged: Trail, exports: ExportService, signer: Ed25519Signer, kept: Settings
) -> None:
    whole = check_of(await lines_of(exports), signer)
    await retain(kept, clock=SystemClock())
    check = check_of(await lines_of(exports), signer)

    assert not check.findings
    assert check.is_attested
    (tombstone,) = check.tombstones
    assert (tombstone.retention_class, tombstone.rows, tombstone.policy_days) == ("usage", 6, 30)
    assert (whole.counts.events, whole.counts.tombstones) == (12, 0)
    assert (check.counts.events, check.counts.others, check.counts.tombstones) == (9, 15, 1)


async def test_what_is_dropped_while_it_is_read_is_named(
    aged: Trail, exports: ExportService, signer: Ed25519Signer, kept: Settings
) -> None:
    header = await exports.begin(asked())
    chunks = exports.lines(header)
    # The header, the checkpoints and the first page.
    text = b"".join([await anext(chunks) for _ in range(3)])
    await retain(kept, clock=SystemClock())
    text += b"".join([chunk async for chunk in chunks])

    check = check_of(text.splitlines(keepends=True), signer)
    assert not check.findings
    assert check.is_attested
    assert check.counts.tombstones == 1


async def test_a_time_from_which_nothing_was_dropped_names_nothing(
    aged: Trail, exports: ExportService, signer: Ed25519Signer, kept: Settings
) -> None:
    await retain(kept, clock=SystemClock())
    yesterday = SystemClock().now() - timedelta(days=1)

    lines = await lines_of(exports, asked(since=yesterday))

    check = check_of(lines, signer)
    assert not check.findings
    assert check.header.start.seq > 1
    assert "tombstone" not in kinds(lines)


def taken_away(lines: list[dict[str, Any]]) -> None:
    lines.remove(first(lines, "tombstone"))
    first(lines, "end")["tombstones"] = 0


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda lines: first(lines, "tombstone").update(rows=1), "its signature is not that of"),
        (lambda lines: first(lines, "tombstone").update(first_seq=900, last_seq=901), "signature"),
        (taken_away, "its signature is not that of a trusted key"),
    ],
)
async def test_a_changed_tombstone_is_found(  # noqa: PLR0917  fixtures
    aged: Trail,
    exports: ExportService,
    signer: Ed25519Signer,
    kept: Settings,
    change: Any,
    found: str,
) -> None:
    await retain(kept, clock=SystemClock())
    lines = [json.loads(line) for line in await lines_of(exports)]
    change(lines)

    plainly = check_of(spelled(lines), signer)
    with_care = check_of(with_new_digest(lines), signer)

    assert plainly.findings
    assert any(found in finding.what for finding in with_care.findings)
    assert not with_care.is_attested
