"""Events of months ago, recorded by the flush itself: only PostgreSQL's clock is another one."""

from datetime import date

import pytest

from maas.audit.application.events import QueuedEvent
from maas.audit.infrastructure import ledger
from maas.audit.infrastructure.retention import list_partitions
from tests.integration.audit.helpers import Superuser, Trail

CLASSES = ("security", "operations", "usage")
_NOW = ledger._NOW_AND_LAST


async def record_ago(
    trail: Trail, monkeypatch: pytest.MonkeyPatch, *events: QueuedEvent, days: int
) -> None:
    """Record events as if it were this many days ago."""
    await trail.superuser.execute(
        "SELECT audit_ensure_partition(class, clock_timestamp() - make_interval(days => $2))"
        " FROM unnest($1::text[]) AS class",
        CLASSES,
        days,
    )
    earlier = f"clock_timestamp() - interval '{days} days'"
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_NOW_AND_LAST", _NOW.replace("clock_timestamp()", earlier))
        await trail.add(*events)
        await trail.flush().run()


async def partitions(superuser: Superuser) -> dict[tuple[str, date], int]:
    """Count the rows of each partition, those of the coming months left out."""
    counted: dict[tuple[str, date], int] = {}
    for partition in await list_partitions(superuser):
        table = f"audit_log_{partition.retention_class}_{partition.period:%Y_%m}"
        rows = await superuser.fetchval(f"SELECT count(*) FROM {table}")
        if rows:
            counted[partition.retention_class, partition.period] = rows
    return counted


async def drop_old_partitions(superuser: Superuser) -> None:
    """Leave the partitions as the migrations made them."""
    for partition in await list_partitions(superuser):
        table = f"audit_log_{partition.retention_class}_{partition.period:%Y_%m}"
        is_old = await superuser.fetchval(
            "SELECT $1::date < date_trunc('month', clock_timestamp())::date", partition.period
        )
        if is_old:
            await superuser.execute(f"DROP TABLE {table}")
