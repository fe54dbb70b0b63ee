"""`maas audit retention`, as an operator types it: what would go, what went, and exit codes."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.cli.conftest import Run
from tests.integration.audit.conftest import trail as trail  # noqa: PLC0414  a fixture, reused
from tests.integration.audit.helpers import Superuser, Trail
from tests.integration.audit.old_events import drop_old_partitions, record_ago

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120), pytest.mark.usefixtures("clean")]


@pytest.fixture
async def given(
    trail: Trail,
    superuser: Superuser,
    settings_of_worker: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[dict[str, str]]:
    """Variables under which three events of usage are due, and one of another class is not."""
    actions = ("usage.settled", "usage.settled", "auth.login", "usage.settled")
    await record_ago(trail, monkeypatch, *map(trail.make, actions), days=150)
    yield {**settings_of_worker, "MAAS_AUDIT__RETENTION_DAYS_USAGE": "30"}
    await drop_old_partitions(superuser)


async def test_says_what_would_go_and_drops_nothing_unasked(
    given: dict[str, str], run: Run, superuser: Superuser
) -> None:
    dry = run("audit", "retention", "--dry-run", given=given)
    spelled = run("audit", "retention", "--dry-run", "--json", given=given)
    unasked = run("audit", "retention", given=given)

    assert dry.returncode == 0, dry.stderr
    assert "would be dropped" in dry.stdout
    assert "for ever" in dry.stdout
    assert dry.stdout.count("security") == spelled.stdout.count('"security"')
    due = [each for each in json.loads(spelled.stdout)["partitions"] if each["is_due"]]
    assert [each["class"] for each in due] == ["usage"]
    assert unasked.returncode == 1
    assert "say --yes" in unasked.stderr
    assert await superuser.fetchval("SELECT count(*) FROM audit_log") == 4


async def test_drops_what_is_due_and_all_of_it_can_be_checked(
    given: dict[str, str], run: Run, superuser: Superuser
) -> None:
    done = run("audit", "retention", "--yes", given=given)
    verdict = run("audit", "verify", "--json", given=given)
    archive = next((Path(given["MAAS_DATA_DIR"]) / "audit" / "archive").iterdir())
    archive.write_bytes(archive.read_bytes()[:-1])
    torn = run("audit", "retention", "--check-archives", "--json", given=given)

    assert done.returncode == 0, done.stderr
    assert "dropped" in done.stdout
    assert await superuser.fetchval("SELECT count(*) FROM audit_log") == 1
    found = json.loads(verdict.stdout)
    assert (found["integrity"], found["dropped"], found["tombstones"]) == ("ok", 3, 1)
    assert torn.returncode == 2
    assert json.loads(torn.stdout)["archives"][0]["fault"].startswith("its size")


async def test_makes_partitions_ahead_where_the_doctor_missed_them(
    settings_of_worker: dict[str, str], run: Run, superuser: Superuser
) -> None:
    rows = await superuser.fetch(
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC' + make_interval(months => ahead),"
        " 'YYYY_MM') AS month FROM generate_series(1, 3) AS ahead"
    )
    for row in rows:
        await superuser.execute(f"DROP TABLE audit_log_usage_{row['month']}")

    before = run("doctor", given=settings_of_worker)
    done = run("audit", "retention", given=settings_of_worker)

    assert before.returncode == 1
    assert "no partition for next month" in before.stdout
    assert done.returncode == 0, done.stderr
    assert "Nothing is due" in done.stdout
    last = f"audit_log_usage_{rows[-1]['month']}"
    assert await superuser.fetchval("SELECT to_regclass($1)", last)


async def test_a_partition_that_was_tampered_with_ends_with_2(
    given: dict[str, str], run: Run, superuser: Superuser
) -> None:
    await superuser.execute("SET session_replication_role = replica")
    await superuser.execute("UPDATE audit_log SET payload = 'x' WHERE seq = 2")
    await superuser.execute("RESET session_replication_role")

    done = run("audit", "retention", "--yes", given=given)

    assert done.returncode == 2
    assert "Row 2 is not what was chained" in done.stdout
    assert await superuser.fetchval("SELECT count(*) FROM audit_log") == 4
