"""The same events as CSV and Parquet, over HTTP, and what becomes of who leaves."""

import asyncio
import csv
import io
import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import cast

import httpx
import pytest
from starlette.types import ASGIApp, Message, Scope

from maas.audit.application.export import ExportService
from maas.audit.application.export_tables import ParquetUnavailableError, TableService
from maas.audit.application.exports import Exports
from maas.audit.domain.export import OwnRow
from maas.audit.domain.export_check import ExportCheck
from maas.audit.domain.export_table_check import TableCheck
from maas.audit.domain.findings import Findings
from maas.audit.infrastructure import parquet_encoder
from maas.audit.infrastructure.export_files import read_csv, read_parquet
from maas.audit.infrastructure.signing import Ed25519Signer, is_signed_by
from maas.audit.wiring import AuditContext
from maas.shared.infrastructure.settings import Settings
from tests.integration.audit.exporting import asked, lines_of
from tests.integration.audit.exporting import exports as exports  # noqa: PLC0414  a fixture, reused
from tests.integration.audit.exporting import recorded as recorded  # noqa: PLC0414  likewise
from tests.integration.audit.exporting import signer as signer  # noqa: PLC0414  likewise
from tests.integration.audit.helpers import Trail

# Parquet is written by a process of its own, which takes its time to start.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

EXPORT = "/api/v1/audit/logs/export"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """One export at a time, so that a place that was not given back shows."""
    audit = settings.audit.model_copy(update={"exports_at_once": 1})
    return settings.model_copy(update={"audit": audit})


@pytest.fixture
def tables(audit: AuditContext) -> TableService:
    made = cast("Exports", audit.state["audit_exports"])
    return replace(made.tables, page_rows=7)


def own_rows(proof: Sequence[bytes], signer: Ed25519Signer) -> list[OwnRow]:
    check = ExportCheck(keys={signer.key_id: signer.public_key}, is_signed=is_signed_by)
    rows = [row for row in map(check.take, proof) if row is not None]
    check.finish()
    assert check.is_attested
    assert not check.findings
    return rows


def faults_of(path: Path, proof: Sequence[bytes], signer: Ed25519Signer) -> list[str]:
    is_csv = path.suffix == ".csv"
    check = TableCheck(findings=Findings(), own=iter(own_rows(proof, signer)), is_guarded=is_csv)
    for row in read_csv(path) if is_csv else read_parquet(path):
        check.take(row)
    check.finish()
    return [finding.what for finding in check.findings]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
async def test_it_is_what_the_proof_says(  # noqa: PLR0917  fixtures
    client: httpx.AsyncClient,
    recorded: Trail,
    exports: ExportService,
    signer: Ed25519Signer,
    tmp_path: Path,
    kind: str,
) -> None:
    path = tmp_path / f"audit.{kind}"
    answer = await client.get(EXPORT, params={"format": kind})
    path.write_bytes(answer.content)

    proof = await lines_of(exports, asked(content="proof"))
    other = await lines_of(exports, asked(content="proof", action="auth.*"))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"] == f'attachment; filename="audit.{kind}"'
    assert answer.headers["x-audit-upto-seq"] == "30"
    assert faults_of(path, proof, signer) == []
    unproven = "the proof names no such event of the tenant, unless it is the older file"
    assert faults_of(path, other, signer) == [unproven] * 20
    (entry,) = await recorded.entries()
    said = json.loads(entry[1][b"payload"])
    assert (said["action"], said["outcome"]) == ("audit.exported", "success")
    assert said["changes"]["after"]["format"] == kind


async def test_what_was_taken_out_of_all_columns_at_once_is_missed(
    recorded: Trail,
    tables: TableService,
    exports: ExportService,
    signer: Ed25519Signer,
    tmp_path: Path,
) -> None:
    path, proof = tmp_path / "audit.csv", await lines_of(exports, asked(content="proof"))
    gone = ("actor_name", "email", "address", "user_agent", "salt")
    for names, value, found in (
        (gone, "", "its personal fields are gone"),
        (("duration_ms",), "", "its column duration_ms is not what the proof says"),
        (("duration_ms",), "7", "its column duration_ms is not what the proof says"),
    ):
        header = await exports.begin(asked())
        whole = b"".join([chunk async for chunk in tables.csv(header, after_seq=None)]).decode()
        rows = list(csv.DictReader(io.StringIO(whole, newline="")))
        rows[3].update(dict.fromkeys(names, value))
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        (fault,) = faults_of(path, proof, signer)
        assert fault.startswith(found)


async def test_who_is_erased_between_a_table_and_its_proof_breaks_neither(
    recorded: Trail,
    tables: TableService,
    exports: ExportService,
    signer: Ed25519Signer,
    tmp_path: Path,
) -> None:
    path, header = tmp_path / "audit.csv", await exports.begin(asked())
    path.write_bytes(b"".join([chunk async for chunk in tables.csv(header, after_seq=None)]))
    before = path.read_bytes()
    await recorded.superuser.execute("DELETE FROM audit_personal")
    proof = await lines_of(exports, asked(content="proof"))

    assert faults_of(path, proof, signer) == []
    path.write_bytes(b"".join([chunk async for chunk in tables.csv(header, after_seq=None)]))
    assert path.read_bytes() != before
    assert faults_of(path, proof, signer) == []


async def test_csv_goes_on_after_a_row(
    client: httpx.AsyncClient, recorded: Trail, tables: TableService, exports: ExportService
) -> None:
    header = await exports.begin(asked())
    whole = b"".join([chunk async for chunk in tables.csv(header, after_seq=None)])
    rows = whole.splitlines(keepends=True)
    assert len(rows) == 21

    for count in (1, 7, 19, 20):
        after_seq = int(rows[count].partition(b",")[0])
        params = {"format": "csv", "upto_seq": "30", "after_seq": str(after_seq)}
        rest = await client.get(EXPORT, params=params)
        assert b"".join(rows[: count + 1]) + rest.content == whole


async def test_parquet_goes_on_in_the_next_file(
    client: httpx.AsyncClient, recorded: Trail, tmp_path: Path
) -> None:
    seqs = []
    for number, params in enumerate(({"upto_seq": "8"}, {"after_seq": "8"})):
        answer = await client.get(EXPORT, params={"format": "parquet", **params})
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(answer.content)
        seqs.append([int(row["seq"] or 0) for row in read_parquet(path)])

    assert seqs == [[1, 2, 4, 5, 7, 8], [10, 11, 13, 14, 16, 17, 19, 20, 22, 23, 25, 26, 28, 29]]


async def test_without_a_process_for_parquet_it_is_an_outage(
    client: httpx.AsyncClient, recorded: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("maas.no_such_module", "this"):
        monkeypatch.setattr(parquet_encoder, "_MODULE", module)
        answer = await client.get(EXPORT, params={"format": "parquet"})
        assert (answer.status_code, answer.json()["code"]) == (503, "export-parquet-unavailable")
    monkeypatch.undo()
    assert (await client.get(EXPORT, params={"format": "parquet"})).status_code == 200


@pytest.mark.parametrize("upto_seq", [None, 1])
async def test_a_process_that_dies_at_the_end_breaks_the_file(
    recorded: Trail,
    tables: TableService,
    exports: ExportService,
    monkeypatch: pytest.MonkeyPatch,
    upto_seq: int | None,
) -> None:
    start = asyncio.create_subprocess_exec

    async def start_mortal(*args: str, **options: object) -> asyncio.subprocess.Process:
        child = await start(*args, **options)  # type: ignore[arg-type]  # passed on
        assert child.stdin is not None
        # The end of its input is what it dies of.
        monkeypatch.setattr(child.stdin, "close", child.kill)
        return child

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_mortal)
    # Of an export without events the end is all there is.
    header = await exports.begin(asked(upto_seq=upto_seq, action=None if upto_seq else "none.such"))

    with pytest.raises(ParquetUnavailableError):
        async for _ in tables.parquet(header, after_seq=None):
            pass


async def test_of_an_export_that_is_given_up_no_process_is_left(
    recorded: Trail, tables: TableService, exports: ExportService, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def remember(*args: str, **options: object) -> asyncio.subprocess.Process:
        started.append(await start(*args, **options))  # type: ignore[arg-type]  # passed on
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remember)
    header = await exports.begin(asked())
    async with aclosing(tables.parquet(header, after_seq=None)) as chunks:  # type: ignore[type-var]  # a generator
        await anext(chunks)
        assert started[0].returncode is None

    assert started[0].returncode is not None


async def leave(app: ASGIApp) -> list[Message]:
    """Ask for an export, and hang up at its first bytes."""
    has_begun, sent = asyncio.Event(), list[Message]()

    async def receive() -> Message:
        await has_begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            has_begun.set()
            await asyncio.Event().wait()

    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": EXPORT,
        "raw_path": EXPORT.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"maas.test"), (b"authorization", b"Bearer ada")],
        "client": ("127.0.0.1", 1),
        "server": ("maas.test", 80),
    }
    async with asyncio.timeout(30):
        await app(scope, receive, send)
    return sent


async def test_who_hangs_up_gives_the_place_back(
    client: httpx.AsyncClient, recorded: Trail
) -> None:
    transport = cast("httpx.ASGITransport", client._transport)
    app = transport.app

    for _ in range(3):
        sent = await leave(app)
        assert sent[0]["status"] == 200
    answer = await client.get(EXPORT)

    assert answer.status_code == 200
    assert answer.content.splitlines()[-1].startswith(b'{"type":"end"')


async def test_more_at_once_are_told_to_wait(client: httpx.AsyncClient, recorded: Trail) -> None:
    transport = cast("httpx.ASGITransport", client._transport)
    app, answers = transport.app, list[httpx.Response]()

    async def ask_beside() -> None:
        answers.append(await client.get(EXPORT))

    async def app_with_another(scope: Scope, receive: object, send: object) -> None:
        async def send_then_ask(message: Message) -> None:
            if message["type"] == "http.response.start":
                await ask_beside()
            await send(message)  # type: ignore[operator]  # ASGI's

        await app(scope, receive, send_then_ask)  # type: ignore[arg-type]  # ASGI's

    await leave(app_with_another)

    (answer,) = answers
    assert (answer.status_code, answer.json()["code"]) == (429, "too-many-exports")
    assert int(answer.headers["retry-after"]) > 0
