"""`maas audit verify --export` and `maas audit resume`, on files, with no server."""

import json
import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner, Result

from maas.audit.application.export import ExportService
from maas.audit.application.export_tables import TableService
from maas.audit.application.exports import Exports
from maas.audit.infrastructure.signing import Ed25519Signer
from maas.audit.wiring import AuditContext
from maas.commands.audit import audit as commands
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.clock import SystemClock
from tests.integration.audit.exporting import (
    OTHER_TENANT,
    asked,
    first,
    lines_of,
    rest_of,
    spelled,
    text_of,
)
from tests.integration.audit.exporting import exports as exports  # noqa: PLC0414  a fixture, reused
from tests.integration.audit.exporting import recorded as recorded  # noqa: PLC0414  likewise
from tests.integration.audit.exporting import signer as signer  # noqa: PLC0414  likewise
from tests.integration.audit.helpers import Trail

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(commands, list(map(str, arguments)), env={"COLUMNS": "300"})


@pytest.fixture
def key(signer: Ed25519Signer, tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_text(signer.public_pem())
    return path


@pytest.fixture
async def table(
    recorded: Trail, audit: AuditContext, exports: ExportService, tmp_path: Path
) -> tuple[Path, Path]:
    """A CSV file and its proof."""
    path, proof = tmp_path / "march.csv", tmp_path / "proof.ndjson"
    tables: TableService = cast("Exports", audit.state["audit_exports"]).tables
    header = await exports.begin(asked())
    path.write_bytes(b"".join([chunk async for chunk in tables.csv(header, after_seq=None)]))
    proof.write_bytes(await text_of(exports, asked(content="proof")))
    return path, proof


async def test_says_what_was_proven(
    recorded: Trail, exports: ExportService, key: Path, tmp_path: Path
) -> None:
    path = tmp_path / "march.ndjson"
    path.write_bytes(await text_of(exports, asked(action="model.*")))

    done = run("verify", "--export", path, "--public-key", key)

    assert done.exit_code == 0, done.output
    integrity, completeness, _ = done.output.splitlines()
    assert integrity.startswith("INTEGRITY    ok: rows 1 to 30, recorded from 2")
    assert integrity.endswith(", 4 checkpoints signed by 1 key")
    assert completeness.startswith("COMPLETENESS ok: all 20 events of tenant ")
    assert " that were recorded by 2" in completeness
    assert completeness.endswith(" with action=model.*, as signed")


async def test_a_sound_file_of_something_else_is_not_what_was_expected(
    recorded: Trail, exports: ExportService, key: Path, tmp_path: Path
) -> None:
    path, now = tmp_path / "march.ndjson", SystemClock().now()
    hour = timedelta(hours=1)
    begin, end = now - hour, now + hour
    is_met = ("--tenant", str(DEFAULT_TENANT_ID), "--unfiltered", "--since", begin.isoformat())
    cases = (
        (asked(since=begin), is_met, None),
        (asked(), is_met, None),
        (asked(upto_seq=8), ("--until", begin.isoformat()), None),
        (asked(), ("--tenant", str(OTHER_TENANT)), f"it is of tenant {DEFAULT_TENANT_ID}"),
        (asked(action="model.*"), is_met, "it has filters"),
        (asked(since=now), is_met, "it begins at "),
        (asked(until=begin), ("--until", now.isoformat()), "it ends at "),
        (asked(), ("--until", end.isoformat()), "it was made at "),
        (asked(upto_seq=8), ("--until", SystemClock().now().isoformat()), "it was to go to row 8"),
    )
    for request, expected, found in cases:
        path.write_bytes(await text_of(exports, request))
        done = run("verify", "--export", path, "--public-key", key, *expected)
        assert done.exit_code == (2 if found else 0), (expected, done.output)
        assert found is None or f"EXPECTED     NOT MET: {found}" in done.output


@pytest.mark.parametrize(
    "change",
    [
        {"seq": math.inf},
        {"seq": "1"},
        {"seq": 1.5},
        {"recorded_at": "1969-12-31T23:59:59Z"},
        {"recorded_at": "0001-01-01T00:00:00+14:00"},
        {"recorded_at": "2026-03-01T00:00:00"},
        {"payload": "1e400"},
    ],
)
async def test_numbers_and_times_beyond_all_bounds_end_with_a_sentence(
    recorded: Trail, exports: ExportService, key: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "march.ndjson"
    lines = [json.loads(line) for line in await lines_of(exports)]
    first(lines, "event").update(change)
    path.write_bytes(b"".join(spelled(lines)))

    done = run("verify", "--export", path, "--public-key", key)

    assert done.exit_code in {1, 2}
    assert isinstance(done.exception, SystemExit), done.exception


async def test_what_is_expected_has_to_make_sense(table: tuple[Path, Path], key: Path) -> None:
    path, proof = table
    for arguments, found in (
        (["--export", path, "--unfiltered"], "give --proof"),
        (["--unfiltered"], "are for --export"),
        (["--export", proof, "--public-key", key, "--since", "2026-03-01"], "with a zone"),
        (["--export", proof, "--public-key", key, "--until", "9999-12-31T23:00:00-14:00"], "zone"),
    ):
        done = run("verify", *arguments)
        assert done.exit_code == 1, done.output
        assert found in " ".join(done.stderr.split()), done.stderr


async def test_a_row_with_a_number_without_end_is_found(table: tuple[Path, Path]) -> None:
    path, _ = table
    head, _, rest = path.read_bytes().partition(b"\r\n1,")
    path.write_bytes(head + b"\r\n" + b"9" * 5_000 + b"," + rest)

    done = run("verify", "--export", path)

    assert done.exit_code == 2, done.output
    assert "its seq is no number" in done.output


async def test_nothing_in_a_file_steers_the_terminal(
    recorded: Trail, exports: ExportService, key: Path, tmp_path: Path
) -> None:
    path = tmp_path / "march\x1b[2K.ndjson"
    text = "\x1b[1K\rINTEGRITY ok\n\u202ex[red]"
    path.write_bytes(await text_of(exports, asked(resource_id=text)))
    mark = b'{"type":"mark","seq":1,"cursor":"\\u001b[2K"}\n'

    done = run("verify", "--export", path, "--public-key", key)
    path.write_bytes(mark)
    unread = run("verify", "--export", path, "--public-key", key)
    cut = run("resume", path)

    assert done.exit_code == 0
    assert "resource_id=\\x1b[1K\\rINTEGRITY ok\\n\\u202ex[red], as signed" in done.output
    assert (unread.exit_code, cut.exit_code) == (1, 1)
    for each in (done, unread, cut):
        assert "\x1b" not in each.output
        assert "\u202e" not in each.output


async def test_an_unsigned_end_proves_no_completeness(
    recorded: Trail, exports: ExportService, key: Path, tmp_path: Path
) -> None:
    path = tmp_path / "march.ndjson"
    path.write_bytes(await text_of(replace(exports, signer=Ed25519Signer(bytes(32)))))

    done = run("verify", "--export", path, "--public-key", key)

    assert done.exit_code == 1
    assert "COMPLETENESS unknown" in done.output


async def test_a_table_is_held_against_its_proof(table: tuple[Path, Path], key: Path) -> None:
    path, proof = table

    whole = run("verify", "--export", path, "--proof", proof, "--public-key", key)
    alone = run("verify", "--export", path)
    path.write_text(path.read_text(encoding="utf-8").replace("model.created", "model.deleted", 1))
    changed = run("verify", "--export", path, "--proof", proof, "--public-key", key)

    assert whole.exit_code == 0, whole.output
    assert "INTEGRITY    ok: 20 rows, each as its payload says" in whole.output
    assert "PROOF        ok: rows 1 to 30" in whole.output
    assert "COMPLETENESS ok: all 20 events" in whole.output
    assert (alone.exit_code, "COMPLETENESS unknown" in alone.output) == (1, True)
    assert changed.exit_code == 2
    assert "row 1: its column action is not what the payload says" in changed.output


async def test_a_row_that_was_taken_out_is_missing(table: tuple[Path, Path], key: Path) -> None:
    path, proof = table
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))

    done = run("verify", "--export", path, "--proof", proof, "--public-key", key)

    assert done.exit_code == 2
    assert "row 29: missing, but the proof names it" in done.output


async def test_a_broken_proof_proves_nothing(table: tuple[Path, Path], key: Path) -> None:
    path, proof = table
    proof.write_bytes(proof.read_bytes()[:-10])

    done = run("verify", "--export", path, "--proof", proof, "--public-key", key)

    assert done.exit_code == 2
    assert "the last line is missing: the file was cut off" in done.output


async def test_what_cannot_be_checked_ends_with_1(
    table: tuple[Path, Path], key: Path, tmp_path: Path
) -> None:
    path, proof = table
    cases: list[tuple[list[str | Path], str]] = [
        (["--export", proof], "give --public-key"),
        (["--export", path, "--proof", proof], "give --public-key"),
        (["--export", proof, "--proof", proof, "--public-key", key], "NDJSON proves itself"),
        (["--export", tmp_path / "none.csv"], "cannot be read"),
        (["--export", tmp_path / "none.ndjson", "--public-key", key], "cannot be read"),
        (["--export", key, "--public-key", key], "line 1 is no line of an export"),
    ]
    for arguments, found in cases:
        done = run("verify", *arguments)
        assert done.exit_code == 1, done.output
        assert found in " ".join(done.stderr.split()), done.stderr


async def test_resume_cuts_the_file_and_says_how_to_go_on(
    recorded: Trail, exports: ExportService, key: Path, tmp_path: Path
) -> None:
    whole, path = await text_of(exports), tmp_path / "march.ndjson"
    path.write_bytes(whole[:-100])

    cut = run("resume", path)
    path.write_bytes(path.read_bytes() + await rest_of(exports, cut.stdout.strip()))
    again = run("resume", path)

    assert cut.exit_code == 0, cut.output
    assert path.read_bytes() == whole
    assert (again.exit_code, again.stdout) == (3, "")
    assert run("verify", "--export", path, "--public-key", key).exit_code == 0


async def test_resume_of_a_table_prints_its_last_row(table: tuple[Path, Path]) -> None:
    path, _ = table
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])

    cut = run("resume", path)

    assert (cut.exit_code, cut.stdout) == (0, "28\n")
    assert whole.startswith(path.read_bytes())


async def test_resume_leaves_alone_what_it_cannot_continue(tmp_path: Path) -> None:
    for number, (text, found) in enumerate(
        ((b"", "anew"), (b'{"type":"header"', "anew"), (b"PAR1", "no export"), (b"seq,id", "anew"))
    ):
        path = tmp_path / str(number)
        path.write_bytes(text)
        done = run("resume", path)
        assert (done.exit_code, found in done.stderr) == (1, True), done.output
        assert path.read_bytes() == text
    assert run("resume", tmp_path / "none").exit_code == 1
