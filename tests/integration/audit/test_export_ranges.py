"""An export of a time: a stretch of the chain that begins and ends at checkpoints."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpx
import pytest

from maas.audit.application.export import ExportService
from maas.audit.application.export_ports import EARLIEST_RECORD, LATEST_RECORD
from maas.audit.infrastructure.signing import Ed25519Signer
from maas.audit.public import Actor
from maas.shared.domain.ids import new_id
from tests.integration.audit.exporting import (
    OTHER_TENANT,
    asked,
    check_of,
    first,
    kinds,
    lines_of,
    with_new_digest,
)
from tests.integration.audit.exporting import exports as exports  # noqa: PLC0414  a fixture, reused
from tests.integration.audit.exporting import signer as signer  # noqa: PLC0414  likewise
from tests.integration.audit.helpers import Trail

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

EXPORT = "/api/v1/audit/logs/export"


@dataclass(frozen=True)
class Halves:
    """Rows 1 to 12, which tell of a day before, and rows 13 to 30, of a day after the middle."""

    trail: Trail
    middle: datetime

    @property
    def since(self) -> datetime:
        """Of what is recorded long enough before, nothing is looked at."""
        return self.middle + EARLIEST_RECORD

    @property
    def until(self) -> datetime:
        return self.middle - LATEST_RECORD


@pytest.fixture
async def halves(trail: Trail) -> Halves:
    before = await trail.superuser.fetchval("SELECT clock_timestamp()")
    await _record(trail, 12, at=before - timedelta(days=1))
    middle = await trail.superuser.fetchval("SELECT clock_timestamp()")
    await _record(trail, 18, at=middle + timedelta(days=1))
    return Halves(trail, middle)


async def _record(trail: Trail, count: int, *, at: datetime) -> None:
    """Flush that many events, every third another tenant's, five to a checkpoint."""
    made = (
        trail.make(
            "model.deleted" if number % 2 else "model.created",
            at=at,
            actor=Actor("account", new_id(), "ada"),
            **({"tenant_id": OTHER_TENANT} if number % 3 == 2 else {}),
        )
        for number in range(count)
    )
    await trail.add(*made)
    await trail.flush(batch_size=5).run()


async def test_what_was_before_is_left_out(
    halves: Halves, exports: ExportService, signer: Ed25519Signer
) -> None:
    lines = await lines_of(exports, asked(since=halves.since))

    check = check_of(lines, signer)
    assert not check.findings
    assert check.is_attested
    start = check.header.start
    assert (start.seq, start.n, check.header.seq_to) == (13, 4, 30)
    assert (check.counts.events, check.counts.others, check.counts.checkpoints) == (12, 6, 4)
    assert check.header.since == halves.since
    assert check.recorded_from is not None
    assert check.recorded_from > halves.middle


async def test_what_came_after_is_left_out(
    halves: Halves, exports: ExportService, signer: Ed25519Signer
) -> None:
    check = check_of(await lines_of(exports, asked(until=halves.until)), signer)

    assert not check.findings
    assert check.is_attested
    assert (check.header.start.seq, check.header.seq_to) == (1, 12)
    assert (check.counts.events, check.counts.others, check.counts.checkpoints) == (8, 4, 3)


async def test_two_files_end_to_end_fit_together(
    halves: Halves, exports: ExportService, signer: Ed25519Signer
) -> None:
    before = await lines_of(exports, asked(until=halves.until))
    after = await lines_of(exports, asked(since=halves.since))

    start = check_of(after, signer).header.start
    last_row = [json.loads(line) for line in before if b'"row_hash":' in line][-1]
    last_checkpoint = [json.loads(line) for line in before if b'"checkpoint"' in line][-1]
    assert start.row_hash.hex() == last_row["row_hash"]
    assert start.checkpoint_hash.hex() == last_checkpoint["hash"]
    assert start.n == last_checkpoint["n"] + 1


async def test_an_event_of_another_time_is_there_as_a_hash_alone(
    halves: Halves, exports: ExportService, signer: Ed25519Signer
) -> None:
    lines = await lines_of(exports, asked(since=halves.middle - timedelta(hours=1)))

    check = check_of(lines, signer)
    assert not check.findings
    assert (check.header.start.seq, check.counts.events, check.counts.others) == (1, 12, 18)


@pytest.mark.parametrize("days", [-400, 400])
async def test_a_time_of_nothing_is_an_export_of_nothing(
    halves: Halves, exports: ExportService, signer: Ed25519Signer, days: int
) -> None:
    since = halves.middle + timedelta(days=days)
    lines = await lines_of(exports, asked(since=since, until=since + timedelta(days=1)))

    check = check_of(lines, signer)
    assert not check.findings
    assert check.is_attested
    assert kinds(lines) == {"header": 1, "key": 1, "end": 1}
    assert (check.header.start.seq, check.header.seq_to) == ((1, 0) if days < 0 else (31, 30))


async def test_up_to_a_row_it_goes_on_to_the_end_of_its_checkpoint(
    halves: Halves, exports: ExportService, signer: Ed25519Signer
) -> None:
    for upto, expected in ((1, 5), (5, 5), (6, 10), (30, 30), (31, 30)):
        check = check_of(await lines_of(exports, asked(upto_seq=upto)), signer)
        assert not check.findings
        assert check.header.seq_to == expected


async def test_filters_stand_in_what_is_signed(
    halves: Halves, exports: ExportService, signer: Ed25519Signer
) -> None:
    for wanted, events in (
        ({"action": "model.deleted"}, 10),
        ({"action": "model.*"}, 20),
        ({"action": "*"}, 20),
        ({"action": "auth.*"}, 0),
        ({"outcome": "failure"}, 0),
        ({"actor_id": new_id()}, 0),
        ({"action": "model.created", "outcome": "success", "since": halves.since}, 6),
    ):
        lines = await lines_of(exports, asked(**wanted))
        check = check_of(lines, signer)
        assert not check.findings
        assert check.counts.events == events, wanted
        names = {name for name in wanted if name != "since"}
        assert check.header.wanted == {name: str(wanted[name]) for name in names}


async def test_a_filtered_file_does_not_pass_as_complete(
    halves: Halves, exports: ExportService, signer: Ed25519Signer
) -> None:
    lines = [json.loads(line) for line in await lines_of(exports, asked(action="model.deleted"))]
    first(lines, "header")["filter"] = {}

    found = check_of(with_new_digest(lines), signer).findings

    assert [finding.what for finding in found] == ["its signature is not that of a trusted key"]


async def test_a_stretch_cannot_begin_elsewhere(
    halves: Halves, exports: ExportService, signer: Ed25519Signer
) -> None:
    lines = [json.loads(line) for line in await lines_of(exports, asked(since=halves.since))]
    start = first(lines, "header")["start"]
    for name, value, found in (
        ("row_hash", "01" * 32, "does not follow"),
        ("checkpoint_hash", "01" * 32, "does not follow from the checkpoint"),
        ("seq", 12, "missing from the chain"),
        ("n", 3, "missing"),
    ):
        kept, start[name] = start[name], value
        findings = check_of(with_new_digest(lines), signer).findings
        start[name] = kept
        assert any(found in finding.what for finding in findings), (name, list(findings))


async def test_what_is_called_the_first_row_follows_from_nothing(
    halves: Halves, exports: ExportService, signer: Ed25519Signer
) -> None:
    lines = [json.loads(line) for line in await lines_of(exports)]
    first(lines, "header")["start"]["row_hash"] = "01" * 32

    findings = check_of(with_new_digest(lines), signer).findings

    assert "the first row of all follows from no other" in {found.what for found in findings}


async def test_a_proof_names_the_tenants_rows_without_their_texts(
    halves: Halves, exports: ExportService, signer: Ed25519Signer
) -> None:
    lines = await lines_of(exports, asked(content="proof"))

    check = check_of(lines, signer)
    assert not check.findings
    assert check.is_attested
    assert kinds(lines)["own"] == 20
    assert not any(b"payload" in line for line in lines)


async def test_over_http_a_filter_is_one_visible_line(
    client: httpx.AsyncClient, halves: Halves
) -> None:
    for path in (EXPORT, EXPORT.removesuffix("/export")):
        for name in ("resource_kind", "resource_id", "request_id"):
            for text in ("\x1b[1K", "a\nb", "\u202ea", "\ufeff"):
                answer = await client.get(path, params={name: text})
                assert answer.status_code == 422, (path, name, text)
                assert "control or invisible" in answer.text
        assert (await client.get(path, params={"resource_id": "a b=王 [é]"})).status_code == 200


async def test_over_http_a_time_that_ends_before_it_begins_is_refused(
    client: httpx.AsyncClient, halves: Halves
) -> None:
    noon = "2026-03-01T12:00:00Z"
    backwards = await client.get(EXPORT, params={"since": noon, "until": noon})
    proof = await client.get(EXPORT, params={"format": "csv", "content": "proof"})
    lines = await client.get(EXPORT, params={"after_seq": "1"})
    march = await client.get(
        EXPORT, params={"since": "2026-03-01T00:00:00Z", "until": "2026-04-01T00:00:00Z"}
    )

    for answer in (backwards, proof, lines):
        assert (answer.status_code, answer.json()["code"]) == (422, "export-options-conflict")
    assert march.status_code == 200
    assert march.headers["x-audit-upto-seq"] == "0"
