"""Retention under attack: by whoever may write the database, or the folder of archives."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from maas.audit.application.retention import LogBusyError, Progress
from maas.audit.domain.tombstone import GENESIS, SignedTombstone, Tombstone
from maas.audit.domain.tombstone_check import StoredTombstone
from maas.audit.domain.tombstone_rows import RowDigest, RowSet
from maas.audit.infrastructure.archive import ArchiveFolder
from maas.audit.infrastructure.retention import PostgresRetentionLog, list_partitions
from maas.audit.infrastructure.signing import Ed25519Signer
from maas.audit.retention_wiring import check_archives, foresee_retention
from maas.audit.wiring import load_configured_signer
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import Settings
from tests.integration.audit import test_retention
from tests.integration.audit.helpers import Superuser
from tests.integration.audit.test_retention import (
    AGO,
    LONG_AGO,
    Record,
    Retain,
    Verify,
    fates,
    spell,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120), pytest.mark.usefixtures("clean")]

kept, run, record, verify, outsider = (
    test_retention.kept,
    test_retention.run,
    test_retention.record,
    test_retention.verify,
    test_retention.outsider,
)

STRANGER = Ed25519Signer(bytes([7]) * 32)
YEAR_20000 = "20000-01-01 00:00Z"
TIMES = [
    ("audit_chain", "recorded_at", "seq = 2", "row 2: "),
    ("audit_log", "occurred_at", "seq = 2", "row 2: its column occurred_at"),
    ("audit_checkpoints", "recorded_at", "n = 1", "checkpoint 1: its hash"),
    ("audit_signing_keys", "created_at", "true", "key "),
]


async def bury(
    superuser: Superuser, signer: Any, seqs: Sequence[int], **fields: Any
) -> StoredTombstone:
    """Put a tombstone over rows, as somebody with that key could."""
    rows = await superuser.fetch(
        "SELECT seq, leaf FROM audit_chain WHERE seq = ANY($1) ORDER BY 1", seqs
    )
    digest, members = RowDigest(), RowSet(seqs[0])
    for row in rows:
        digest.take(row["seq"], row["leaf"])
        members.add(row["seq"])
    packed = members.pack()
    now = SystemClock().now()
    tombstone = replace(
        Tombstone(
            n=1,
            retention_class="usage",
            period=(now - timedelta(days=LONG_AGO)).date().replace(day=1),
            rows=len(seqs),
            first_seq=seqs[0],
            last_seq=seqs[-1],
            members=sha256(packed).digest(),
            digest=digest.digest(),
            archive=None,
            policy_days=30,
            actor="worker",
            decided_at=now,
            key_id=signer.key_id,
            previous=GENESIS,
        ),
        **fields,
    )
    signed = SignedTombstone(tombstone=tombstone, signature=signer.sign(tombstone.to_bytes()))
    stored = StoredTombstone(signed=signed, packed=packed, hash=tombstone.hash())
    await PostgresRetentionLog(superuser, arguments={}, composer=None).bury(stored)  # type: ignore[arg-type]  # composes nothing here
    return stored


async def take_away(outsider: Superuser, seqs: Sequence[int]) -> None:
    await outsider.execute("DELETE FROM audit_log WHERE seq = ANY($1)", seqs)
    for table in ("audit_personal", "audit_dedup"):
        await outsider.execute(
            f"DELETE FROM {table} WHERE event_id NOT IN (SELECT event_id FROM audit_log)"
        )


class TestSigner:
    async def test_lets_no_event_of_another_class_go_whatever_its_label_says(
        self, record: Record, run: Retain, outsider: Superuser
    ) -> None:
        await record(9)
        await outsider.execute(
            "UPDATE audit_log SET retention_class = 'usage' WHERE action = 'auth.login'"
        )

        report = await run()

        assert fates(report) == [("usage", "refused")]
        assert report.outcomes[0].is_unsound
        assert "retention_class is not what the event says" in report.outcomes[0].why
        assert await outsider.fetchval("SELECT count(*) FROM audit_log") == 9

    async def test_signs_nothing_that_somebody_else_noted(
        self, record: Record, run: Retain, verify: Verify, outsider: Superuser, tmp_path: Path
    ) -> None:
        await record(9)
        rows = await outsider.fetch("SELECT seq, leaf FROM audit_chain WHERE seq >= 3 ORDER BY 1")
        digest, members = RowDigest(), RowSet(3)
        for row in rows:
            digest.take(row["seq"], row["leaf"])
            members.add(row["seq"])
        digest.close_block()
        forged = Progress(
            after=9, rows=7, first=3, blocks=tuple(digest.blocks), bits=members.pack()
        )
        folder = ArchiveFolder(tmp_path / "archive", seal=STRANGER.sign)
        usage = next(p for p in await list_partitions(outsider) if p.retention_class == "usage")
        folder.append(usage, forged, [])

        report = await run()

        buried = await outsider.fetchrow("SELECT rows, first_seq, last_seq FROM audit_tombstones")
        assert fates(report) == [("usage", "dropped")]
        assert tuple(buried or ()) == (3, 3, 9)
        assert (await verify()).is_sound

    async def test_signs_nothing_of_rows_that_went_while_they_were_read(
        self, record: Record, run: Retain, outsider: Superuser
    ) -> None:
        await record(9)
        await run(run_seconds=0.0)
        await outsider.execute("DELETE FROM audit_log WHERE seq = 6")

        report = await run()

        assert fates(report) == [("usage", "refused")]
        assert report.outcomes[0].is_unsound
        assert await outsider.fetchval("SELECT count(*) FROM audit_tombstones") == 0


class TestMonths:
    @pytest.mark.parametrize("era", [" BC", ""], ids=["before", "wild"])
    async def test_of_another_era_are_none_to_drop(
        self, era: str, record: Record, settings: Settings, superuser: Superuser
    ) -> None:
        await record(3, days=0)
        month = await superuser.fetchval("SELECT to_char(clock_timestamp(), 'YYYY-MM-01')")
        month = f"{month}{era}" if era else "20000-01-01"
        system = await asyncpg.connect(**system_arguments(settings.database))
        try:
            with pytest.raises(asyncpg.InvalidParameterValueError):
                await system.execute(f"SELECT audit_drop_partition('usage', '{month}', NULL)")
            with pytest.raises(asyncpg.CheckViolationError, match="ck_audit_tombstones_period"):
                await system.execute(
                    "INSERT INTO audit_tombstones SELECT 1, 'usage', date '"
                    f"{month}', 1, 1, 1, '', '', NULL, NULL, NULL, 1, 'x', now(), key_id, '', '',"
                    " '', '' FROM audit_signing_keys"
                )
        finally:
            await system.close()
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await superuser.execute(f"SELECT audit_rollup_forget('usage', '{month}')")

    async def test_may_be_made_far_ahead_and_disturb_nothing(
        self, record: Record, run: Retain, superuser: Superuser
    ) -> None:
        await record(6)
        made = await superuser.fetchval("SELECT audit_ensure_partition('usage', '9998-12-01')")
        try:
            assert fates(await run()) == [("usage", "dropped")]
        finally:
            await superuser.execute(f"DROP TABLE {made}")


class TestTimes:
    @pytest.mark.parametrize(("table", "column", "where", "_found"), TIMES)
    async def test_that_nobody_can_read_are_not_written(
        self,
        *,
        table: str,
        column: str,
        where: str,
        _found: str,
        record: Record,
        outsider: Superuser,
    ) -> None:
        await record(3, days=0)

        for at in (YEAR_20000, "infinity", "4000-01-01 00:00Z BC"):
            with pytest.raises(asyncpg.CheckViolationError, match=f"ck_{table}_times|partition"):
                await outsider.execute(f"UPDATE {table} SET {column} = '{at}' WHERE {where}")

    @pytest.mark.parametrize(("table", "column", "where", "found"), TIMES)
    @pytest.mark.parametrize("at", [YEAR_20000, "4000-01-01 00:00Z BC"], ids=["late", "early"])
    async def test_that_are_there_all_the_same_are_findings(
        self,
        *,
        at: str,
        table: str,
        column: str,
        where: str,
        found: str,
        record: Record,
        verify: Verify,
        outsider: Superuser,
    ) -> None:
        await record(3, days=0)
        check = await outsider.fetchval(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conname = $1 AND conparentid = 0 AND conislocal ORDER BY oid LIMIT 1",
            f"ck_{table}_times",
        )
        name = f"ck_{table}_times"
        before = await outsider.fetchval(f"SELECT {column} FROM {table} WHERE {where}")
        await outsider.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        try:
            await outsider.execute(f"UPDATE {table} SET {column} = '{at}' WHERE {where}")

            verdict = await verify()

            assert any(text.startswith(found) for text in spell(verdict)), spell(verdict)
        finally:
            await outsider.execute(f"UPDATE {table} SET {column} = $1 WHERE {where}", before)
            await outsider.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {check}")


class TestTombstones:
    @pytest.mark.parametrize("stretch", [{}, {"first": 2}, {"first": 1, "last": 8}], ids=str)
    async def test_of_a_key_that_was_slipped_in_cover_nothing_unsaid(
        self, stretch: dict[str, int], record: Record, verify: Verify, outsider: Superuser
    ) -> None:
        await record(9)
        await outsider.execute(
            "INSERT INTO audit_signing_keys SELECT $1, $2, first_seq, created_at"
            " FROM audit_signing_keys",
            STRANGER.key_id,
            STRANGER.public_key,
        )
        await bury(outsider, STRANGER, [5, 6])
        await take_away(outsider, [5, 6])

        verdict = await verify(**stretch)

        text = f"tombstone 1: its key {STRANGER.key_id} signed no checkpoint of those checked"
        assert any(found.startswith(text) for found in spell(verdict))

    @pytest.mark.parametrize(
        ("fields", "found"),
        [
            ({"period": date(2020, 1, 1)}, "row 5: not recorded in the month of tombstone 1"),
            ({"policy_days": 3_000}, "tombstone 1: it was decided before its policy was over"),
        ],
        ids=["month", "policy"],
    )
    async def test_are_held_against_the_rows_they_cover(
        self,
        *,
        fields: dict[str, Any],
        found: str,
        record: Record,
        verify: Verify,
        outsider: Superuser,
        settings: Settings,
    ) -> None:
        await record(9)
        await bury(outsider, load_configured_signer(settings), [5, 6], **fields)
        await take_away(outsider, [5, 6])

        assert found in spell(await verify())

    async def test_that_nobody_signed_say_nothing_of_an_archive(
        self, record: Record, run: Retain, kept: Settings, outsider: Superuser
    ) -> None:
        await record(6)
        await record(6, days=AGO)
        await run()
        whole = await check_archives(kept)
        await outsider.execute("UPDATE audit_tombstones SET archive_name = 'other' WHERE n = 2")
        changed = await check_archives(kept)
        await outsider.execute("DELETE FROM audit_tombstones WHERE n = 1")
        shortened = await check_archives(kept)

        fault = "of its tombstone, its hash is not that of its fields"
        assert [each.fault for each in whole] == [None, None]
        assert [each.fault for each in changed] == [None, fault]
        assert [each.fault for each in shortened] == ["the tombstone is missing", fault]


class TestRun:
    async def test_drops_no_more_than_was_shown(
        self, record: Record, run: Retain, kept: Settings
    ) -> None:
        await record(6)
        prospects = await foresee_retention(kept, clock=SystemClock())
        shown = [prospect.partition for prospect in prospects if prospect.is_due]
        await record(6, days=AGO)

        first, then = await run(only=shown), await run()

        assert [outcome.partition.period for outcome in first.outcomes] == [shown[0].period]
        assert fates(then) == [("usage", "dropped")]

    async def test_that_is_locked_out_says_so(self, run: Retain, superuser: Superuser) -> None:
        lock = "SELECT pg_advisory_xact_lock(hashtextextended('maas.audit_retention', 0))"
        async with superuser.transaction():
            await superuser.execute(lock)
            with structlog.testing.capture_logs() as said:
                await run()

        assert {"event": "audit_retention_locked_out", "log_level": "warning"} in said


class TestOneOfMany:
    async def test_that_lost_a_row_keeps_no_other_waiting(
        self, record: Record, run: Retain, outsider: Superuser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await record(9)
        await record(9, days=AGO)

        async def keep(*_: object) -> bool:
            raise LogBusyError("busy")

        with monkeypatch.context() as patch:
            patch.setattr(PostgresRetentionLog, "drop", keep)
            patch.setattr("maas.audit.application.retention.asyncio.sleep", _at_once)
            await run()
        await outsider.execute("DELETE FROM audit_log WHERE seq = 6")

        report = await run()

        assert fates(report) == [("usage", "refused"), ("usage", "dropped")]
        assert report.outcomes[0].is_unsound
        assert "has no tombstone for the rows in it" in report.outcomes[0].why

    async def test_that_takes_too_long_keeps_no_other_waiting(
        self, record: Record, run: Retain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await record(9)
        await record(9, days=AGO)
        monkeypatch.setattr("maas.audit.infrastructure.retention._SPAN", _SLOW_SPAN)

        report = await run()

        assert fates(report) == [("usage", "put_off"), ("usage", "dropped")]


# Cancelled as a statement is whose time is up.
_SLOW_SPAN = """
    SELECT count(*) AS rows, min(seq) AS first, max(seq) AS last,
        CASE WHEN min(seq) = 3 AND pg_cancel_backend(pg_backend_pid()) THEN pg_sleep(60)::text END
    FROM {rows}
"""


async def _at_once(_: float) -> None:
    """Wait no longer than for the others."""
