"""Builds retention: for the worker's task, and for the command of those who run it by hand."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from maas.audit.application.events import EventComposer
from maas.audit.application.retention import (
    RUN_SECONDS,
    RetentionReport,
    RetentionService,
)
from maas.audit.domain.findings import Findings
from maas.audit.domain.retention import RETENTION_CLASSES
from maas.audit.domain.retention_policy import Partition, Prospect, RetentionPolicy, foresee
from maas.audit.domain.tombstone_check import TombstoneCheck
from maas.audit.infrastructure.archive import archive_folder, find_archive_fault, open_archive
from maas.audit.infrastructure.retention import open_retention_log
from maas.audit.infrastructure.signing import is_signed_by
from maas.audit.infrastructure.trail_reader import PostgresTrailReader, open_snapshot
from maas.audit.wiring import load_configured_signer
from maas.shared.domain.clock import Clock
from maas.shared.infrastructure.settings import DEFAULT_DATA_DIR, AuditSettings, Settings


def read_policy(settings: AuditSettings) -> RetentionPolicy:
    """Say for how many days each class is kept; those without a number are kept for ever."""
    own = {
        "security": settings.retention_days_security,
        "operations": settings.retention_days_operations,
        "usage": settings.retention_days_usage,
    }
    days = {name: own[name] or settings.retention_days for name in RETENTION_CLASSES}
    return RetentionPolicy({name: count for name, count in days.items() if count is not None})


async def retain(
    settings: Settings,
    *,
    clock: Clock,
    actor: str = "worker",
    run_seconds: float | None = RUN_SECONDS,
    only: Collection[Partition] | None = None,
) -> RetentionReport:
    """Make partitions ahead and drop those that are due, over connections of its own.

    With `only`, no others are dropped.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    data_dir = settings.data_dir or DEFAULT_DATA_DIR
    signer = load_configured_signer(settings)
    folder = open_archive(settings.audit.archive_dir, data_dir=data_dir, seal=signer.sign)
    async with open_retention_log(settings.database, composer=EventComposer(clock)) as log:
        service = RetentionService(
            log=log,
            archive=folder,
            signer=signer,
            policy=read_policy(settings.audit),
            actor=actor,
            run_seconds=run_seconds,
            only=only,
        )
        return await service.run()


async def foresee_retention(settings: Settings, *, clock: Clock) -> list[Prospect]:
    """Tell what retention would drop now, and what stays until when; nothing is changed.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    async with open_retention_log(settings.database, composer=EventComposer(clock)) as log:
        return foresee(await log.partitions(), read_policy(settings.audit), at=await log.now())


@dataclass(frozen=True, slots=True)
class CheckedArchive:
    """What came of checking the archive of tombstone `n`."""

    n: int
    name: str | None
    fault: str | None


async def check_archives(settings: Settings) -> list[CheckedArchive]:
    """Hold every archive against its tombstone, and that against its key, as the database has it.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    data_dir = settings.data_dir or DEFAULT_DATA_DIR
    folder = archive_folder(settings.audit.archive_dir, data_dir=data_dir)
    async with open_snapshot(settings.database) as connection:
        reader = PostgresTrailReader(connection)
        keys = {key.key_id: key.public_key for key in await reader.keys()}
        tombstones = await reader.tombstones()
    findings = Findings()
    check = TombstoneCheck(tombstones, keys=keys, is_signed=is_signed_by, findings=findings)
    checked = [CheckedArchive(n, None, "the tombstone is missing") for n in check.missing]
    for tombstone in (stored.signed.tombstone for stored in tombstones):
        name = None if tombstone.archive is None else tombstone.archive.name
        fault = check.faults.get(tombstone.n)
        if fault is not None:
            fault = f"of its tombstone, {fault}"
        else:
            fault = await asyncio.to_thread(find_archive_fault, folder, tombstone)
        checked.append(CheckedArchive(tombstone.n, name, fault))
    return sorted(checked, key=lambda each: each.n)
