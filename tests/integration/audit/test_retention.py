"""The log shortened: what goes leaves a tombstone, and what stays still proves itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from maas.audit.application.retention import RetentionReport
from maas.audit.application.verification import Verdict, VerifyOptions
from maas.audit.domain.tombstone import read_signed_tombstone
from maas.audit.infrastructure.archive import measure, read_events
from maas.audit.infrastructure.retention import read_tombstone
from maas.audit.retention_wiring import foresee_retention, retain
from maas.audit.wiring import AuditContext, verify_trail
from maas.shared.domain.ids import TenantId, new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.settings import Settings
from tests.conftest import MakeSettings
from tests.integration.audit.helpers import Superuser, Trail
from tests.integration.audit.old_events import drop_old_partitions, partitions, record_ago

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120), pytest.mark.usefixtures("clean")]

Retain = Callable[..., Awaitable[RetentionReport]]
Record = Callable[..., Awaitable[None]]
Verify = Callable[..., Awaitable[Verdict]]

TENANTS = [TenantId(new_id()), TenantId(new_id())]
ACTIONS = ("model.created", "auth.login", "usage.settled")
LONG_AGO, AGO = 150, 100


@pytest.fixture
def kept(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """Settings under which usage goes after thirty days, and all else stays."""
    audit = {"retention_days_usage": 30, "archive_dir": str(tmp_path / "archive")}
    return make_settings(audit=audit)


@pytest.fixture
def run(kept: Settings) -> Retain:
    def run(settings: Settings = kept, **options: Any) -> Awaitable[RetentionReport]:
        return retain(settings, clock=SystemClock(), **options)

    return run


@pytest.fixture
async def record(
    trail: Trail, monkeypatch: pytest.MonkeyPatch, superuser: Superuser
) -> AsyncIterator[Record]:
    async def record(count: int = 6, *, days: int = LONG_AGO) -> None:
        events = [
            trail.make(ACTIONS[number % 3], tenant_id=TENANTS[number % 2])
            for number in range(count)
        ]
        await record_ago(trail, monkeypatch, *events, days=days)

    yield record
    await drop_old_partitions(superuser)


@pytest.fixture
def verify(settings: Settings) -> Verify:
    return lambda **options: verify_trail(settings, VerifyOptions(**options))


@pytest.fixture
async def outsider(superuser: Superuser) -> AsyncIterator[Superuser]:
    """A superuser for whom no trigger fires."""
    await superuser.execute("SET session_replication_role = replica")
    yield superuser
    await superuser.execute("RESET session_replication_role")


def fates(report: RetentionReport) -> list[tuple[str, str]]:
    return [(outcome.partition.retention_class, outcome.fate) for outcome in report.outcomes]


def spell(verdict: Verdict) -> list[str]:
    gaps = [f"{gap.count} {gap.what}" for gap in verdict.gaps]
    return [f"{finding.subject}: {finding.what}" for finding in verdict.findings] + gaps


class TestRun:
    async def test_drops_what_is_due_and_all_of_the_rest_still_verifies(
        self, record: Record, run: Retain, verify: Verify, superuser: Superuser, trail: Trail
    ) -> None:
        await record(9)
        await record(9, days=AGO)
        await record(9, days=0)
        before = await superuser.fetch("SELECT * FROM audit_chain ORDER BY seq")

        report = await run()

        left = await partitions(superuser)
        assert fates(report) == [("usage", "dropped")] * 2
        assert [name for name, _ in left].count("usage") == 1
        assert await superuser.fetch("SELECT * FROM audit_chain ORDER BY seq") == before
        await trail.age()
        await trail.flush().run()
        verdict = await verify()
        assert spell(verdict) == []
        assert (verdict.rows, verdict.dropped, verdict.tombstones) == (29, 6, 2)

    async def test_leaves_a_signed_tombstone_and_an_event_that_names_it(
        self, record: Record, run: Retain, superuser: Superuser, trail: Trail
    ) -> None:
        await record(6)

        await run()

        row: Any = await superuser.fetchrow("SELECT * FROM audit_tombstones")
        stored = read_tombstone(row)
        assert read_signed_tombstone(stored.signed.to_mapping()) == stored.signed
        assert (row["n"], row["rows"], row["retention_class"]) == (1, 2, "usage")
        assert (row["first_seq"], row["last_seq"], row["policy_days"]) == (3, 6, 30)
        await trail.age()
        await trail.flush().run()
        payload = await superuser.fetchval(
            "SELECT payload FROM audit_log WHERE action = 'audit.partition_dropped'"
        )
        assert stored.hash.hex().encode() in payload

    async def test_takes_the_personal_fields_and_the_ids_along(
        self, record: Record, run: Retain, superuser: Superuser
    ) -> None:
        await record(6)

        await run()

        for table in ("audit_personal", "audit_dedup"):
            assert await superuser.fetchval(f"SELECT count(*) FROM {table}") == 4

    async def test_archives_the_events_without_personal_fields(
        self, record: Record, run: Retain, superuser: Superuser, tmp_path: Path
    ) -> None:
        await record(6)
        wanted = await superuser.fetch(
            "SELECT seq, payload FROM audit_log WHERE retention_class = 'usage' ORDER BY seq"
        )

        await run()

        row: Any = await superuser.fetchrow("SELECT * FROM audit_tombstones")
        file = tmp_path / "archive" / row["archive_name"]
        assert measure(file) == (row["archive_size"], row["archive_sha256"])
        assert list(read_events(file)) == [tuple(each) for each in wanted]
        assert [path.name for path in file.parent.iterdir()] == [file.name]

    async def test_without_an_archive_writes_no_event_down(
        self,
        record: Record,
        run: Retain,
        make_settings: MakeSettings,
        verify: Verify,
        tmp_path: Path,
    ) -> None:
        await record(6)
        audit = {"retention_days_usage": 30, "archive_dir": "-"}

        report = await run(make_settings(audit=audit, data_dir=str(tmp_path)))

        assert fates(report) == [("usage", "dropped")]
        assert list((tmp_path / "audit" / "archive").iterdir()) == []
        assert (await verify()).is_sound

    async def test_stopped_after_every_step_ends_as_if_it_never_was(
        self, record: Record, run: Retain, verify: Verify, superuser: Superuser, tmp_path: Path
    ) -> None:
        await record(9)

        reports = [await run(run_seconds=0.0)]
        while reports[-1].has_more:
            reports.append(await run(run_seconds=0.0))

        row: Any = await superuser.fetchrow("SELECT * FROM audit_tombstones")
        assert len(reports) > 2
        assert fates(reports[-1]) == [("usage", "dropped")]
        assert len(list(read_events(tmp_path / "archive" / row["archive_name"]))) == 3
        assert (await verify()).is_sound

    async def test_again_changes_nothing_more(
        self, record: Record, run: Retain, superuser: Superuser
    ) -> None:
        await record(6)
        await run()

        assert fates(await run()) == []
        assert await superuser.fetchval("SELECT count(*) FROM audit_tombstones") == 1
        assert await superuser.fetchval("SELECT count(*) FROM audit_outbox") == 1

    async def test_without_a_policy_only_makes_partitions_ahead(
        self, audit: AuditContext, run: Retain, settings: Settings, superuser: Superuser
    ) -> None:
        ahead = await superuser.fetchval(
            "SELECT to_char(clock_timestamp() + interval '3 months', 'YYYY_MM')"
        )
        await superuser.execute(f"DROP TABLE audit_log_usage_{ahead}")

        before = (await audit.backlog())["partitions_ahead"]

        report = await run(settings)

        assert report.outcomes == []
        assert (before, (await audit.backlog())["partitions_ahead"]) == (2, 3)
        assert await superuser.fetchval("SELECT to_regclass($1)", f"audit_log_usage_{ahead}")

    async def test_an_empty_partition_goes_without_a_tombstone(
        self, record: Record, run: Retain, superuser: Superuser
    ) -> None:
        await record(1)

        report = await run()

        assert fates(report) == [("usage", "dropped")]
        assert await superuser.fetchval("SELECT count(*) FROM audit_tombstones") == 0

    async def test_while_another_is_under_way_does_nothing(
        self, record: Record, run: Retain, superuser: Superuser
    ) -> None:
        await record(6)
        async with superuser.transaction():
            await superuser.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('maas.audit_retention', 0))"
            )

            report = await run()

        assert not report.is_alone
        assert await superuser.fetchval("SELECT count(*) FROM audit_tombstones") == 0

    async def test_twenty_times_while_the_flush_goes_on_loses_nothing(
        self, record: Record, run: Retain, verify: Verify, trail: Trail, superuser: Superuser
    ) -> None:
        for month in range(4):
            await record(12, days=LONG_AGO - 31 * month)
        is_over = asyncio.Event()

        async def keep_flushing() -> int:
            written = 0
            while not is_over.is_set():
                await trail.add(*(trail.make(action) for action in ACTIONS))
                written += (await trail.flush().run()).written
            return written

        flushing = asyncio.ensure_future(keep_flushing())
        reports = [await run(run_seconds=0.05) for _ in range(20)]
        is_over.set()
        written = await flushing
        dropped = [fate for report in reports for _, fate in fates(report) if fate == "dropped"]
        await trail.age()
        await trail.flush().run()

        verdict = await verify()
        assert len(dropped) == await superuser.fetchval("SELECT count(*) FROM audit_tombstones")
        assert len(dropped) >= 3
        assert written > 0
        assert spell(verdict) == []

    async def test_an_event_of_that_month_is_not_there_and_the_answer_says_why(
        self,
        run: Retain,
        record: Record,
        trail: Trail,
        client: httpx.AsyncClient,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await record(1)
        then = SystemClock().now() - timedelta(days=LONG_AGO)
        event = trail.make("usage.settled", at=then)
        await record_ago(trail, monkeypatch, event, days=LONG_AGO)
        await run()
        made_then = UUID(int=int(then.timestamp() * 1000) << 80 | event.id.int & (1 << 80) - 1)

        answers = [
            await client.get(f"/api/v1/audit/logs/{made_then}{path}") for path in ("", "/proof")
        ]

        assert [answer.status_code for answer in answers] == [404, 404]
        for answer in answers:
            assert "usage (tombstone 1)" in answer.json()["detail"]


class TestRefusals:
    async def test_a_reader_is_not_disturbed_and_the_partition_waits(
        self, record: Record, run: Retain, verify: Verify, trail: Trail, superuser: Superuser
    ) -> None:
        await record(6)
        async with superuser.transaction(isolation="repeatable_read", readonly=True):
            await superuser.fetchval("SELECT count(*) FROM audit_log")

            report = await run()

            await trail.add(trail.make("usage.settled"))
            flushed = await trail.flush().run()

        assert fates(report) == [("usage", "put_off")]
        assert flushed.written == 1
        assert (await verify()).is_sound
        assert fates(await run()) == [("usage", "dropped")]
        assert (await verify()).is_sound

    async def test_a_folder_that_cannot_be_written_keeps_the_partition(
        self, record: Record, run: Retain, make_settings: MakeSettings, superuser: Superuser
    ) -> None:
        await record(6)
        audit = {"retention_days_usage": 30, "archive_dir": "/dev/null/archive"}

        report = await run(make_settings(audit=audit))

        assert fates(report) == [("usage", "refused")]
        assert "/dev/null/archive" in report.outcomes[0].why
        assert await superuser.fetchval("SELECT count(*) FROM audit_log") == 6

    async def test_a_partition_that_was_tampered_with_is_kept_as_evidence(
        self, record: Record, run: Retain, outsider: Superuser
    ) -> None:
        await record(6)
        await outsider.execute("UPDATE audit_log SET payload = 'x' WHERE seq = 3")

        report = await run()

        assert fates(report) == [("usage", "refused")]
        assert "Row 3" in report.outcomes[0].why
        assert await outsider.fetchval("SELECT count(*) FROM audit_tombstones") == 0

    async def test_a_key_that_signed_nothing_yet_signs_no_tombstone(
        self, record: Record, run: Retain, make_settings: MakeSettings, tmp_path: Path
    ) -> None:
        await record(6)
        audit = {
            "retention_days_usage": 30,
            "archive_dir": str(tmp_path),
            "signing_key": "11" * 32,
        }

        report = await run(make_settings(audit=audit))

        assert fates(report) == [("usage", "refused")]

    @pytest.mark.parametrize("tombstone", [None, 1, 2])
    async def test_the_database_drops_nothing_without_its_tombstone(
        self, tombstone: int | None, record: Record, run: Retain, superuser: Superuser
    ) -> None:
        await record(6, days=AGO)
        await run()
        await record(6)

        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="has no tombstone"):
            await superuser.execute(
                "SELECT audit_drop_partition('usage', date_trunc('month', clock_timestamp()"
                " - make_interval(days => $2))::date, $1)",
                tombstone,
                LONG_AGO,
            )

    async def test_the_database_drops_nothing_of_the_last_thirty_days(
        self, superuser: Superuser, record: Record
    ) -> None:
        await record(1, days=0)

        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="not old enough"):
            await superuser.execute(
                "SELECT audit_drop_partition('usage', "
                "date_trunc('month', clock_timestamp())::date, NULL)"
            )

    @pytest.mark.parametrize("month", [date(2020, 1, 2), None])
    async def test_the_database_knows_its_partitions(
        self, month: date | None, superuser: Superuser
    ) -> None:
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await superuser.execute("SELECT audit_drop_partition('usage', $1, NULL)", month)

    async def test_the_application_may_not_drop(self, superuser: Superuser) -> None:
        async with superuser.transaction():
            await superuser.execute("SET LOCAL ROLE maas_app")

            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await superuser.execute(
                    "SELECT audit_drop_partition('usage', date '2020-01-01', NULL)"
                )


class TestAttacks:
    """By somebody with all rights in the database, and without the key."""

    async def test_rows_that_go_under_a_tombstone_nobody_signed_are_missed(
        self, record: Record, run: Retain, verify: Verify, outsider: Superuser
    ) -> None:
        await record(6, days=AGO)
        await run()
        await outsider.execute(
            "INSERT INTO audit_tombstones SELECT (t).* FROM (SELECT jsonb_populate_record(a, "
            """'{"n": 2, "first_seq": 1, "last_seq": 1, "rows": 1}') AS t"""
            " FROM audit_tombstones a) AS forged"
        )
        await outsider.execute("DELETE FROM audit_log WHERE seq = 1")

        verdict = await verify()

        subjects = [finding.subject for finding in verdict.findings]
        assert subjects[:2] == ["row 1", "tombstone 2"]

    async def test_a_tombstone_that_is_taken_away_is_missed(
        self, record: Record, run: Retain, verify: Verify, outsider: Superuser
    ) -> None:
        await record(6)
        await record(6, days=AGO)
        await run()
        await outsider.execute("DELETE FROM audit_tombstones WHERE n = 1")

        verdict = await verify()

        subjects = [finding.subject for finding in verdict.findings]
        assert subjects == ["row 3", "row 6", "tombstone 1"]

    async def test_rows_beside_those_of_a_tombstone_are_missed(
        self, record: Record, run: Retain, verify: Verify, outsider: Superuser
    ) -> None:
        await record(6)
        await run()
        await outsider.execute("DELETE FROM audit_personal; DELETE FROM audit_log WHERE seq = 4")

        verdict = await verify(first=4, last=4)

        assert "row 4: missing from the log" in spell(verdict)

    async def test_a_tombstone_says_nothing_of_another_chain(
        self, record: Record, run: Retain, verify: Verify, outsider: Superuser
    ) -> None:
        await record(6)
        await run()
        tombstones = await outsider.fetch("SELECT * FROM audit_tombstones")
        for table in ("log", "chain", "personal", "dedup", "checkpoints", "outbox", "tombstones"):
            await outsider.execute(f"DELETE FROM audit_{table}")
        await outsider.execute(
            "UPDATE audit_head SET seq = 0, hash = decode(repeat('00',32),'hex')"
        )
        await record(6)
        await outsider.execute("DELETE FROM audit_log WHERE seq IN (3, 6)")
        await outsider.execute(
            "DELETE FROM audit_personal WHERE event_id NOT IN (SELECT event_id FROM audit_log)"
        )
        for row in tombstones:
            await outsider.execute(
                "INSERT INTO audit_tombstones VALUES"
                " ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19)",
                *row,
            )

        verdict = await verify()

        assert "tombstone 1: the chain has other rows under these numbers" in spell(verdict)


async def test_a_forecast_changes_nothing_and_says_what_would_go(
    record: Record, kept: Settings, superuser: Superuser
) -> None:
    await record(6)

    prospects = await foresee_retention(kept, clock=SystemClock())

    due = [prospect for prospect in prospects if prospect.is_due]
    assert [prospect.partition.retention_class for prospect in due] == ["usage"]
    assert {p.partition.retention_class for p in prospects if p.until is None} == {
        "security",
        "operations",
    }
    assert await superuser.fetchval("SELECT count(*) FROM audit_log") == 6
