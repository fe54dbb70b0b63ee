"""`maas audit`, as an operator types it: verdicts, files and exit codes."""

import json
from pathlib import Path

import pytest

from maas.audit.application.export_ports import ExportRequest
from maas.audit.application.exports import Exports
from maas.audit.infrastructure.checkpoints import read_row
from maas.audit.infrastructure.heads import append_head
from maas.audit.infrastructure.rollup_check import ROLLUPS
from maas.bootstrap import open_platform
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.settings import Settings
from tests.e2e.cli.conftest import Run
from tests.integration.audit.conftest import trail as trail  # noqa: PLC0414  a fixture, reused
from tests.integration.audit.helpers import Superuser, Trail

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
async def recorded(trail: Trail, superuser: Superuser) -> Trail:
    await trail.add(*(trail.make() for _ in range(30)))
    await trail.flush(batch_size=10).run()
    await superuser.execute("SET session_replication_role = replica")
    return trail


@pytest.fixture
async def heads(recorded: Trail, tmp_path: Path) -> Path:
    path = tmp_path / "heads.ndjson"
    for row in await recorded.superuser.fetch("SELECT * FROM audit_checkpoints ORDER BY n"):
        append_head(path, read_row(row))
    return path


@pytest.fixture
def public_key(run: Run, settings_of_worker: dict[str, str], tmp_path: Path) -> Path:
    path = tmp_path / "public.pem"
    assert run("audit", "key", "--out", str(path), given=settings_of_worker).returncode == 0
    return path


async def test_an_untouched_trail_ends_with_0(
    recorded: Trail, heads: Path, public_key: Path, run: Run, settings_of_worker: dict[str, str]
) -> None:
    done = run(
        "audit", "verify", "--head", str(heads), "--public-key", str(public_key),
        given=settings_of_worker,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("INTEGRITY    ok: rows 1 to 30, 3 checkpoints signed by 1 key (")
    assert lines[0].endswith("3 exported heads on the chain")
    assert lines[1].startswith("COMPLETENESS ok")


async def test_a_changed_row_ends_with_2_and_is_named(
    recorded: Trail, run: Run, settings_of_worker: dict[str, str]
) -> None:
    await recorded.superuser.execute("UPDATE audit_log SET action = 'x.y' WHERE seq IN (17, 23)")

    done = run("audit", "verify", given=settings_of_worker)
    fast = run("audit", "verify", "--fast", given=settings_of_worker)
    before = run("audit", "verify", "--to", "10", given=settings_of_worker)
    spelled = run("audit", "verify", "--from", "12", "--json", given=settings_of_worker)

    assert done.returncode == 2
    assert "the first is row 17: its column action" in done.stdout
    assert "row 23: its column action is not what the event says" in done.stdout
    assert fast.returncode == 0
    assert before.returncode == 0
    assert "rows 1 to 10, 1 checkpoint" in before.stdout
    verdict = json.loads(spelled.stdout)
    assert spelled.returncode == 2
    assert (verdict["integrity"], verdict["first_bad_seq"]) == ("broken", 17)
    assert (verdict["first_seq"], verdict["last_seq"], verdict["rows"]) == (11, 30, 20)


async def test_a_cut_tail_ends_with_3(
    recorded: Trail, heads: Path, run: Run, settings_of_worker: dict[str, str]
) -> None:
    await recorded.superuser.execute("""
        DELETE FROM audit_personal USING audit_log l
            WHERE l.event_id = audit_personal.event_id AND seq > 20;
        DELETE FROM audit_dedup USING audit_log l
            WHERE l.event_id = audit_dedup.event_id AND seq > 20;
        DELETE FROM audit_log WHERE seq > 20;
        DELETE FROM audit_chain WHERE seq > 20;
        DELETE FROM audit_checkpoints WHERE seq_to > 20;
        UPDATE audit_head SET (seq, hash) = (SELECT seq, row_hash FROM audit_chain WHERE seq = 20)
    """)
    for rollup in ROLLUPS:
        await recorded.superuser.execute(f"DELETE FROM {rollup.table}")
        await recorded.superuser.execute(f"INSERT INTO {rollup.table} {rollup.counted}")

    alone = run("audit", "verify", given=settings_of_worker)
    done = run("audit", "verify", "--head", str(heads), given=settings_of_worker)

    assert alone.returncode == 0
    assert done.returncode == 3, done.stdout
    assert "heads.ndjson line 3: checkpoint 3, up to row 30, is not in the database" in done.stdout


async def test_what_waits_or_was_set_aside_makes_it_incomplete(
    recorded: Trail, run: Run, settings_of_worker: dict[str, str]
) -> None:
    await recorded.add_raw(v="1", payload="garbage")
    await recorded.flush().run()
    await recorded.keep(recorded.make())
    await recorded.superuser.execute(
        "UPDATE audit_outbox SET created_at = created_at - interval '1 hour'"
    )

    done = run("audit", "verify", given=settings_of_worker)

    assert done.returncode == 2
    assert "INTEGRITY    ok" in done.stdout
    assert "INCOMPLETE: 1 waiting in the outbox for more than 60 s; 1 set aside" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--head", "nowhere.ndjson"), "nowhere.ndjson cannot be read"),
        (("--public-key", "nowhere.pem"), "nowhere.pem cannot be read"),
    ],
)
def test_what_cannot_be_checked_ends_with_1(
    run: Run, settings_of_worker: dict[str, str], arguments: tuple[str, ...], complaint: str
) -> None:
    done = run("audit", "verify", *arguments, given=settings_of_worker)

    assert done.returncode == 1
    assert complaint in done.stderr


def test_without_a_server_ends_with_1(run: Run, settings_of_worker: dict[str, str]) -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    given = {
        **settings_of_worker,
        **{f"MAAS_DATABASE__{name}": url for name in ("URL", "OWNER_URL", "SYSTEM_URL")},
    }

    done = run("audit", "verify", given=given)

    assert done.returncode == 1
    assert "the trail could not be checked" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_proof_is_checked_without_a_server(
    recorded: Trail, public_key: Path, run: Run, settings_of_worker: dict[str, str], tmp_path: Path
) -> None:
    event_id = (await recorded.logged())[13]
    proof = tmp_path / "proof.json"
    written = run("audit", "prove", event_id, "--out", str(proof), given=settings_of_worker)
    changed = tmp_path / "changed.json"
    changed.write_text(proof.read_text().replace("model.created", "model.deleted"))
    predated = tmp_path / "predated.json"
    claimed = "1999-01-01T00:00:00.000000Z"
    predated.write_text(json.dumps({**json.loads(proof.read_text()), "recorded_at": claimed}))
    key = ("--public-key", str(public_key))

    good = run("audit", "verify", "--proof", str(proof), *key, given={})
    told = run("audit", "verify", "--proof", str(predated), *key, given={})
    bad = run("audit", "verify", "--proof", str(changed), *key, given={})
    without = run("audit", "verify", "--proof", str(proof), given={})
    odd = run("audit", "verify", "--proof", str(public_key), *key, given={})

    assert written.returncode == 0, written.stderr
    assert (good.returncode, bad.returncode) == (0, 2)
    assert f"ok: event {event_id} is row 14" in good.stdout
    assert claimed not in told.stdout, "what nothing proves is not said"
    assert "BROKEN: its leaf is not the hash of its payload" in bad.stdout
    assert (without.returncode, odd.returncode) == (1, 1)
    assert "give --public-key" in without.stderr
    assert "is no proof" in odd.stderr


async def test_what_is_not_in_the_log_cannot_be_proven(
    recorded: Trail, run: Run, settings_of_worker: dict[str, str]
) -> None:
    waiting = recorded.make()

    done = run("audit", "prove", str(waiting.id), given=settings_of_worker)

    assert done.returncode == 1
    assert "No such event is in the log" in done.stderr


async def test_an_export_is_checked_without_a_server(
    recorded: Trail, public_key: Path, run: Run, settings: Settings, tmp_path: Path
) -> None:
    path, cut = tmp_path / "audit.ndjson", tmp_path / "cut.ndjson"
    async with open_platform(settings) as platform:
        exports: Exports = platform.state["audit_exports"]  # type: ignore[assignment]  # by name
        header = await exports.lines.begin(ExportRequest(tenant_id=DEFAULT_TENANT_ID))
        lines = b"".join([chunk async for chunk in exports.lines.lines(header)])
    path.write_bytes(lines)
    cut.write_bytes(lines[:-100])
    unsigned = tmp_path / "unsigned.ndjson"
    *before, end = lines.splitlines(keepends=True)
    stripped = {**json.loads(end), "key_id": None, "signature": None}
    unsigned.write_bytes(b"".join(before) + json.dumps(stripped).encode() + b"\n")
    key = ("--public-key", str(public_key))

    good = run("audit", "verify", "--export", str(path), *key, given={})
    bad = run("audit", "verify", "--export", str(cut), *key, given={})
    odd = run("audit", "verify", "--export", str(public_key), *key, given={})
    some = run("audit", "verify", "--export", str(unsigned), *key, given={})

    assert good.returncode == 0, good.stdout + good.stderr
    assert "INTEGRITY    ok: rows 1 to 30, recorded from 2" in good.stdout
    assert ", 3 checkpoints signed by 1 key" in good.stdout
    assert "COMPLETENESS ok: all 30 events of tenant" in good.stdout
    assert bad.returncode == 2
    assert "the last line is missing: the file was cut off" in bad.stdout
    assert odd.returncode == 1
    assert "line 1 is no line of an export" in odd.stderr
    assert some.returncode == 1
    assert "COMPLETENESS unknown" in some.stdout
