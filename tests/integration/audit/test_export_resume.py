"""A download that was cut off goes on, and the file is what it would have been."""

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from maas.audit.application.export import ExportService
from maas.audit.application.export_cursor import LIFETIME, ExportCursorError
from maas.audit.infrastructure.export_files import cut_off, find_cut
from maas.audit.infrastructure.export_reader import PostgresExportReader
from maas.audit.infrastructure.signing import Ed25519Signer
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from tests.fakes.clock import FakeClock
from tests.integration.audit.exporting import (
    OTHER_TENANT,
    asked,
    check_of,
    kinds,
    rest_of,
    text_of,
)
from tests.integration.audit.exporting import exports as exports  # noqa: PLC0414  a fixture, reused
from tests.integration.audit.exporting import recorded as recorded  # noqa: PLC0414  likewise
from tests.integration.audit.exporting import signer as signer  # noqa: PLC0414  likewise
from tests.integration.audit.helpers import Trail

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

EXPORT = "/api/v1/audit/logs/export"


def cursors_of(text: bytes) -> list[str]:
    lines = [json.loads(line) for line in text.splitlines()]
    return [line["cursor"] for line in lines if line["type"] == "mark"]


async def test_cut_anywhere_it_is_the_same_file_in_the_end(
    recorded: Trail, exports: ExportService, signer: Ed25519Signer, tmp_path: Path
) -> None:
    whole, path = await text_of(exports), tmp_path / "audit.ndjson"
    first_mark = whole.index(b"\n", whole.index(b'{"type":"mark"')) + 1
    seeded = random.Random(23)  # noqa: S311  places to cut at, no secrets
    for size in (0, 1, first_mark - 1, first_mark, len(whole) - 1, *seeded.sample(
        range(len(whole)), 30
    )):  # fmt: skip
        path.write_bytes(whole[:size])
        cut = find_cut(path)
        assert not cut.is_whole
        assert (cut.go_on is None) == (size < first_mark), size
        if cut.go_on is not None:
            cut_off(path, cut.size)
            path.write_bytes(path.read_bytes() + await rest_of(exports, cut.go_on))
            assert path.read_bytes() == whole, size
    assert find_cut(path).is_whole
    check = check_of(whole.splitlines(keepends=True), signer)
    assert not check.findings
    assert check.is_attested
    assert kinds(whole.splitlines())["mark"] == 4


async def test_large_events_make_short_pages(
    recorded: Trail, exports: ExportService, signer: Ed25519Signer, database: Database
) -> None:
    plain = kinds((await text_of(exports)).splitlines())
    for page_bytes, marks in ((1, 19), (1_500, None), (1_000_000, plain["mark"])):
        short = replace(exports, reader=PostgresExportReader(database, page_bytes=page_bytes))
        whole = await text_of(short)

        check = check_of(whole.splitlines(keepends=True), signer)
        assert not check.findings
        assert check.is_attested
        counted = kinds(whole.splitlines())
        assert {**counted, "mark": 0} == {**plain, "mark": 0}
        assert marks in {None, counted["mark"]}
        cursor = cursors_of(whole)[2]
        begin = whole[: whole.index(b"\n", whole.index(cursor.encode())) + 1]
        assert begin + await rest_of(short, cursor) == whole


async def test_what_is_recorded_or_erased_meanwhile_does_not_break_it(
    recorded: Trail, exports: ExportService, signer: Ed25519Signer
) -> None:
    whole = await text_of(exports)
    cursor = cursors_of(whole)[1]
    begin = whole[: whole.index(b"\n", whole.index(cursor.encode())) + 1]
    await recorded.superuser.execute("DELETE FROM audit_personal")
    await recorded.add(recorded.make())
    await recorded.flush().run()

    text = begin + await rest_of(exports, cursor)

    check = check_of(text.splitlines(keepends=True), signer)
    assert not check.findings
    assert check.is_attested
    assert (check.counts.events, check.counts.others) == (20, 10)
    assert text != whole


async def test_the_rest_alone_is_no_export(recorded: Trail, exports: ExportService) -> None:
    rest = await rest_of(exports, cursors_of(await text_of(exports))[0])

    assert json.loads(rest.splitlines()[0])["type"] != "header"


def beginning_changed(cursor: str) -> str:
    return ("f" if cursor[0] == "e" else "e") + cursor[1:]


@pytest.mark.parametrize(
    "change",
    [
        beginning_changed,
        lambda cursor: cursor[:-1],
        lambda cursor: cursor + "A",
        lambda cursor: cursor.partition(".")[0],
        lambda cursor: cursor.partition(".")[0] + "." + "A" * 86,
        lambda _: "\U0001f600.\ud800",
        lambda _: "",
    ],
)
async def test_a_changed_cursor_is_refused(
    recorded: Trail, exports: ExportService, change: Callable[[str], str]
) -> None:
    cursor = cursors_of(await text_of(exports))[0]

    with pytest.raises(ExportCursorError, match="as it is"):
        exports.read_cursor(DEFAULT_TENANT_ID, change(cursor))


async def test_another_tenants_cursor_is_refused(recorded: Trail, exports: ExportService) -> None:
    cursor = cursors_of(await text_of(exports, asked(OTHER_TENANT)))[0]

    with pytest.raises(ExportCursorError, match="another tenant"):
        exports.read_cursor(DEFAULT_TENANT_ID, cursor)


async def test_a_cursor_is_good_for_a_week(recorded: Trail, exports: ExportService) -> None:
    clock = FakeClock(SystemClock().now())
    exports = replace(exports, clock=clock)
    cursor = cursors_of(await text_of(exports))[0]

    clock.move(LIFETIME)
    exports.read_cursor(DEFAULT_TENANT_ID, cursor)
    clock.move(timedelta(microseconds=1))
    with pytest.raises(ExportCursorError, match="7 days"):
        exports.read_cursor(DEFAULT_TENANT_ID, cursor)


async def test_a_cursor_of_another_key_is_refused(recorded: Trail, exports: ExportService) -> None:
    cursor = cursors_of(await text_of(exports))[0]

    for other in (None, Ed25519Signer(bytes(32))):
        with pytest.raises(ExportCursorError):
            replace(exports, signer=other).read_cursor(DEFAULT_TENANT_ID, cursor)
    assert not cursors_of(await text_of(replace(exports, signer=None)))


async def test_while_a_client_is_slow_nothing_is_held(
    recorded: Trail, exports: ExportService, database: Database
) -> None:
    header = await exports.begin(asked())
    async for _ in exports.lines(header):
        assert database.reads.get_idle_size() == database.reads.get_size()


async def test_while_others_flush_it_is_whole(
    recorded: Trail, exports: ExportService, signer: Ed25519Signer
) -> None:
    async def record() -> None:
        flush = recorded.flush(batch_size=3)
        for _ in range(5):
            await recorded.add(*(recorded.make() for _ in range(3)))
            await flush.run()

    recording = asyncio.create_task(record())
    while not recording.done():
        lines = (await text_of(exports)).splitlines(keepends=True)
        assert not check_of(lines, signer).findings
    await recording
    check = check_of((await text_of(exports)).splitlines(keepends=True), signer)
    assert (check.counts.events, check.counts.others) == (35, 10)


async def test_over_http_a_cursor_comes_alone_and_whole(
    client: httpx.AsyncClient, recorded: Trail, exports: ExportService
) -> None:
    since = SystemClock().now() - timedelta(days=1)
    whole = await text_of(exports, asked(action="model.*", since=since, upto_seq=29))
    cursor = cursors_of(whole)[0]

    rest = await client.get(EXPORT, params={"cursor": cursor})
    forged = await client.get(EXPORT, params={"cursor": cursor[:-2]})
    beside = await client.get(EXPORT, params={"cursor": cursor, "outcome": "failure"})
    table = await client.get(EXPORT, params={"cursor": cursor, "format": "csv"})

    # The server's pages are longer, so its marks lie elsewhere; the end is signed all the same.
    assert rest.status_code == 200, rest.text
    assert rest.content.splitlines()[-1].startswith(b'{"type":"end"')
    codes = [(answer.status_code, answer.json()["code"]) for answer in (forged, beside, table)]
    assert codes == [
        (422, "export-cursor-invalid"),
        (422, "export-options-conflict"),
        (422, "export-options-conflict"),
    ]
    entries = [json.loads(entry[1][b"payload"]) for entry in await recorded.entries()]
    assert [(entry["outcome"], entry["reason"]) for entry in entries] == [
        ("success", None),
        ("failure", "export-cursor-invalid"),
        ("failure", "export-options-conflict"),
        ("failure", "export-options-conflict"),
    ]
    said = entries[0]["changes"]["after"]
    assert (said["format"], said["is_continued"]) == ("ndjson", True)
    # What is sent is what was asked for at first, so the trail says that.
    assert (said["since"], said["filter"]) == (since.isoformat(), ["action=model.*"])
    assert (said["after_seq"], said["upto_seq"]) == (7, 29)
