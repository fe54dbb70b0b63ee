"""What the worker's tasks call, and what a process of it keeps open for them."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog

from maas.audit.application.flush import HARD_LIMIT, FlushReport
from maas.audit.flush_wiring import FlushContext, build_flush
from maas.audit.interface.tasks import (
    DELIVERY_SERVICE,
    ERASURE_SERVICE,
    FLUSH_SERVICE,
    HEAD_SERVICE,
    PRUNE_SERVICE,
    RETENTION_SERVICE,
    WATCH_SERVICE,
)
from maas.audit.retention_wiring import retain
from maas.audit.wiring import (
    build_event_composer,
    build_event_writer,
    build_head_service,
    deliver_alerts,
    erase_personal_fields,
    prune,
    spool_folder,
    watch_trail,
)
from maas.inference.infrastructure.captures_upkeep import erase_captures, prune_captures
from maas.inference.infrastructure.replays import prune_replays
from maas.inference.interface.tasks import CAPTURE_PRUNE_SERVICE, REPLAY_PRUNE_SERVICE
from maas.model.infrastructure.bookings import book_due
from maas.model.interface.tasks import COLLECT_SERVICE, STORAGE_SERVICE, WATCH_PROVIDERS_SERVICE
from maas.model.wiring import collect, watch_providers
from maas.sealed import check_sealed, rewrap_sealed
from maas.shared.domain.ids import AccountId
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.idempotency import purge_expired
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import DEFAULT_DATA_DIR, Settings
from maas.shared.infrastructure.task_loop import TaskLoop
from maas.shared.infrastructure.worker_connections import BOOKING_POOLS
from maas.shared.interface.tasks import PURGE_SERVICE, REWRAP_SERVICE, SEALING_CHECK_SERVICE
from maas.user.infrastructure.mail_queue import purge_sign_in
from maas.user.infrastructure.quota_alerts import tell_reached
from maas.user.infrastructure.quota_budgets import PostgresBudgets
from maas.user.infrastructure.quota_expiry import expire_holds
from maas.user.infrastructure.usage_upkeep import prepare_usage
from maas.user.interface.tasks import (
    MAIL_SERVICE,
    QUOTA_EXPIRY_SERVICE,
    QUOTA_TELL_SERVICE,
    SIGN_IN_PURGE_SERVICE,
    USAGE_PREPARE_SERVICE,
)
from maas.user.wiring import forget_people, send_due_mails
from maas.worker_schedule import SOFT_LIMIT_SECONDS

_log = structlog.get_logger(__name__)
T = TypeVar("T")

CLOSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResources:
    """What a process keeps open between its tasks; nothing connects before it is needed."""

    flush: FlushContext
    database: Database
    budgets: PostgresBudgets

    async def close(self) -> None:
        await self.flush.close()
        # What is not told by then stays written down, and is told the next time.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.budgets.close()
        await self.database.close()


def open_resources(settings: Settings) -> TaskResources:
    database = Database(settings.database.model_copy(update=BOOKING_POOLS))
    return TaskResources(
        flush=build_flush(settings), database=database, budgets=PostgresBudgets(database)
    )


def make_services(settings: Settings, loop: TaskLoop[TaskResources]) -> Mapping[str, object]:
    """What the tasks call, by the names they look it up under."""
    data_dir, clock = settings.data_dir or DEFAULT_DATA_DIR, SystemClock()
    heads = build_head_service(settings)

    def run(work: Callable[[TaskResources], Coroutine[Any, Any, T]]) -> T:
        return loop.run(work, time_limit=timedelta(seconds=SOFT_LIMIT_SECONDS))

    def soon(work: Coroutine[Any, Any, T]) -> T:
        return run(lambda _: work)

    def flush() -> FlushReport:
        limit = HARD_LIMIT + timedelta(seconds=1)
        return loop.run(lambda kept: kept.flush.service.run(), time_limit=limit)

    return {
        FLUSH_SERVICE: flush,
        DELIVERY_SERVICE: lambda: soon(deliver_alerts(settings, clock=clock)),
        ERASURE_SERVICE: lambda: run(lambda kept: erase_people(settings, kept.flush.redis)),
        HEAD_SERVICE: lambda: soon(heads.export()),
        PRUNE_SERVICE: lambda: soon(prune(settings.database)),
        RETENTION_SERVICE: lambda: soon(retain(settings, clock=clock)).has_more,
        REPLAY_PRUNE_SERVICE: lambda: soon(prune_replays(settings.database, clock=clock)),
        PURGE_SERVICE: lambda: soon(purge_expired(settings.database, clock=clock)),
        REWRAP_SERVICE: lambda: soon(rewrap_sealed(settings)),
        SEALING_CHECK_SERVICE: lambda *start: soon(check_sealed(settings, *start)),
        COLLECT_SERVICE: lambda: soon(collect_artifacts(settings)),
        STORAGE_SERVICE: lambda: run(lambda kept: book_storage(settings, kept)),
        WATCH_PROVIDERS_SERVICE: lambda: soon(check_providers(settings)),
        MAIL_SERVICE: lambda: soon(send_due_mails(settings, data_dir=data_dir, clock=clock)),
        SIGN_IN_PURGE_SERVICE: lambda: soon(purge_sign_in(settings.database, clock=clock)),
        QUOTA_TELL_SERVICE: lambda: soon(tell_quotas(settings)),
        QUOTA_EXPIRY_SERVICE: lambda: soon(expire(settings)),
        USAGE_PREPARE_SERVICE: lambda: soon(prepare_usage(settings.database)),
        CAPTURE_PRUNE_SERVICE: lambda: soon(prune_captures(settings.database, clock=clock)),
        WATCH_SERVICE: lambda: soon(watch_trail(settings, clock=clock)),
    }


async def collect_artifacts(settings: Settings) -> None:
    """Free what is due in the artifact store, unless another process is at it."""
    clock = SystemClock()
    done = await collect(settings, events=build_event_writer(clock), clock=clock)
    if done is not None and done.is_held:
        _log.warning("collection_held", lifted_by="maas resume-collection")


async def check_providers(settings: Settings) -> int:
    """Ask suppliers whether they answer, unless another process is at it."""
    clock = SystemClock()
    return await watch_providers(settings, events=build_event_writer(clock), clock=clock)


async def book_storage(settings: Settings, kept: TaskResources) -> int:
    """Tell the quotas of storage that was taken and given back."""
    await kept.database.open()
    return await book_due(settings.database, kept.budgets)


async def expire(settings: Settings) -> int:
    """Settle the calls of those who are gone, and tell the trail of them."""
    return await expire_holds(settings.database, events=build_event_composer(SystemClock()))


async def tell_quotas(settings: Settings) -> int:
    """Tell the trail what was reached of quotas since the last time."""
    return await tell_reached(settings.database, events=build_event_writer(SystemClock()))


async def erase_people(settings: Settings, redis: RedisGate) -> int:
    """Erase who is gone from the trail, and from mails, invitations and captures beside it."""
    data_dir, clock = settings.data_dir or DEFAULT_DATA_DIR, SystemClock()

    async def elsewhere(person: UUID, _names: Sequence[str], emails: Sequence[str]) -> None:
        await erase_captures(settings.database, AccountId(person), clock=clock)
        await forget_people(settings, data_dir=data_dir, emails=emails)

    return await erase_personal_fields(
        settings.database,
        clock=clock,
        redis=redis,
        folder=spool_folder(data_dir),
        elsewhere=elsewhere,
    )
