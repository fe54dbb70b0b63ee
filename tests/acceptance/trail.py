"""The evidence of the audit trail: changes are found, fast enough, and one event proves itself."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import httpx

from maas.audit.application.verification import VerifyOptions
from maas.audit.domain.record import read_record
from maas.audit.infrastructure.ledger import PostgresLedger
from maas.audit.wiring import load_configured_signer, verify_trail
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import Settings, load_settings
from tests.acceptance.platforms import Platform, clean_environment, running
from tests.acceptance.suites import run_tests
from tests.acceptance.verdict import Verdict, all_of
from tests.integration.audit.conftest import make_event
from tests.servers import TEMPLATE, RunningServers, Servers, migrate_template

ROOT = Path(__file__).resolve().parents[2]
TAMPERINGS = 1_000
ROWS, BATCH = 60_000, 2_000
GOAL_ROWS_A_SECOND = 20_000
VISIBLE_SECONDS = 30.0
AUDIT = "/api/v1/audit"


def thousand_tamperings(folder: Path) -> Verdict:
    returncode, counts, failed = run_tests(folder, "tests/integration/audit/test_tampering.py")
    found = counts["found"]
    return all_of(
        (returncode == 0, f"{failed} of {counts['tests']} tests failed"),
        (found == TAMPERINGS, f"{found} of {TAMPERINGS} found and named"),
    )


def check_speed(folder: Path) -> Verdict:
    servers = RunningServers()
    try:
        migrate_template(servers.servers, ROOT / "alembic.ini")
        rate, is_sound = asyncio.run(_check_many(folder, servers.servers))
    finally:
        servers.stop()
    return all_of(
        (is_sound, f"{ROWS:,} rows are whole"),
        (rate >= GOAL_ROWS_A_SECOND, f"{rate:,.0f} rows/s of this process's CPU"),
    )


async def _check_many(folder: Path, servers: Servers) -> tuple[float, bool]:
    settings = _settings(folder, servers)
    ledger = PostgresLedger(
        system_arguments(settings.database), signer=load_configured_signer(settings)
    )
    for _ in range(0, ROWS, BATCH):
        events = [make_event() for _ in range(BATCH)]
        await ledger.append(
            [
                read_record(
                    payload=event.payload, personal=event.personal.to_json().encode(), duration_ms=3
                )
                for event in events
            ]
        )
    await ledger.close()
    # By CPU time: what else runs on the machine is not the check's fault.
    begun = time.process_time()
    verdict = await verify_trail(settings, VerifyOptions())
    return verdict.rows / (time.process_time() - begun), verdict.is_sound and verdict.is_complete


def _settings(folder: Path, servers: Servers) -> Settings:
    return load_settings(
        environment="test",
        secret_key="acceptance-only-0123456789-abcdefghijklmnopqrstuvwxyz",
        data_dir=folder / "data",
        database={
            "url": servers.database_url(TEMPLATE, "maas_app"),
            "owner_url": servers.database_url(TEMPLATE, "maas_owner"),
            "system_url": servers.database_url(TEMPLATE, "maas_system"),
        },
        redis={"url": servers.redis_url(0)},
    )


def offline_proof(folder: Path) -> Verdict:
    """Prove an event and export a tenant on a platform, stop it, and check both without it."""
    proof, export, key = folder / "proof.json", folder / "audit.ndjson", folder / "public.pem"
    with running(folder) as platform:
        person = platform.sign_in()
        with person.client() as client:
            event_id = _record_and_find(client, f"{person.name}/model")
            export.write_bytes(client.get(f"{AUDIT}/logs/export").raise_for_status().content)
            took = _time_proofs(client, event_id)
        online = _maas("verify", platform=platform)
        _maas("key", "--out", str(key), platform=platform)
        _maas("prove", str(event_id), "--out", str(proof), platform=platform)
    changed = folder / "changed.json"
    changed.write_text(proof.read_text().replace("model.created", "model.deleted"))
    codes = [
        _maas("verify", option, str(path), "--public-key", str(key)).returncode
        for option, path in (("--proof", proof), ("--export", export), ("--proof", changed))
    ]
    return all_of(
        (online.returncode == 0, f"`maas audit verify` ended with {online.returncode}"),
        (codes[0] == 0, f"the proof alone: {codes[0]}"),
        (codes[1] == 0, f"the export alone: {codes[1]}"),
        (codes[2] == 2, f"a changed proof: {codes[2]}"),
        (took <= 0.05, f"a proof took {took * 1000:.0f} ms"),
    )


def _record_and_find(client: httpx.Client, name: str) -> UUID:
    client.post("/api/v1/models", json={"name": name, "framework": "other"}).raise_for_status()
    deadline = time.monotonic() + VISIBLE_SECONDS
    while time.monotonic() < deadline:
        answer = client.get(f"{AUDIT}/logs", params={"action": "model.created"})
        items = answer.raise_for_status().json()["items"]
        if items:
            return UUID(items[0]["id"])
        time.sleep(0.1)
    message = f"no event after {VISIBLE_SECONDS:.0f} s"
    raise TimeoutError(message)


def _time_proofs(client: httpx.Client, event_id: UUID) -> float:
    """Return the median of a few, over HTTP, in seconds."""
    taken = []
    for _ in range(9):
        begun = time.monotonic()
        answer = client.get(f"{AUDIT}/logs/{event_id}/proof")
        taken.append(time.monotonic() - begun)
        json.loads(answer.raise_for_status().content)
    return sorted(taken)[len(taken) // 2]


def _maas(*arguments: str, platform: Platform | None = None) -> "subprocess.CompletedProcess[str]":
    variables = {} if platform is None else {"MAAS_DATA_DIR": str(platform.data_dir)}
    return subprocess.run(
        [sys.executable, "-m", "maas.cli", "audit", *arguments],
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
