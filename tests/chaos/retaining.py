"""Runs retention on a cluster that is at work: `python -m tests.chaos.retaining RUNS`.

Each run finds events of months ago, which the product's own writer has just recorded there: only
PostgreSQL's clock was another one.
"""

import asyncio
import sys
from typing import Any, Final

import asyncpg

from maas.audit.application.events import EventComposer
from maas.audit.application.flush import LogUnavailableError
from maas.audit.domain.record import Record, read_record
from maas.audit.infrastructure import ledger
from maas.audit.infrastructure.silence import SilentAudit
from maas.audit.public import Actor, AuditScope
from maas.audit.retention_wiring import retain
from maas.audit.wiring import load_configured_signer
from maas.shared.domain.call import Call
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import Settings, load_settings

EVENTS: Final = 60
MONTHS: Final = 4
_NOW: Final = ledger._NOW_AND_LAST
_ENSURE: Final = """
    SELECT audit_ensure_partition('usage', clock_timestamp() - make_interval(days => $1))
"""


async def main(runs: int) -> int:
    given = load_settings()
    audit = given.audit.model_copy(update={"retention_days_usage": 30})
    settings = given.model_copy(update={"audit": audit})
    dropped = put_off = 0
    for number in range(runs):
        await record_old_events(settings, days=100 + 31 * (number % MONTHS))
        report = await retain(settings, clock=SystemClock())
        fates = [outcome.fate for outcome in report.outcomes]
        dropped += fates.count("dropped")
        put_off += len(fates) - fates.count("dropped")
    sys.stdout.write(f"dropped {dropped}, put off {put_off}\n")
    return 0


async def record_old_events(settings: Settings, *, days: int) -> None:
    arguments: dict[str, Any] = system_arguments(settings.database)
    connection = await asyncpg.connect(**arguments)
    await connection.execute(_ENSURE, days)
    await connection.close()
    earlier = f"clock_timestamp() - interval '{days} days'"
    ledger._NOW_AND_LAST = _NOW.replace("clock_timestamp()", earlier)  # type: ignore[misc]  # Final
    log = ledger.PostgresLedger(arguments, signer=load_configured_signer(settings))
    try:
        await append(log, [make_record() for _ in range(EVENTS)])
    finally:
        await log.close()


async def append(log: ledger.PostgresLedger, records: list[Record]) -> None:
    """Append them, behind flushers that hold the head."""
    for _ in range(20):
        try:
            await log.append(records)
        except LogUnavailableError:
            await asyncio.sleep(0.5)
        else:
            return
    raise SystemExit("the log takes nothing")


def make_record() -> Record:
    scope = AuditScope("usage.settled")
    scope.actor = Actor("system", None, name="chaos")
    call = Call(request_id=new_id().hex, recorder=SilentAudit())
    event = EventComposer(SystemClock()).compose(scope, call)
    return read_record(
        payload=event.payload, personal=event.personal.to_json().encode(), duration_ms=None
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]))))
