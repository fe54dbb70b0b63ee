"""The Celery app and its beat schedule: `celery -A maas.worker worker`, and `... beat`.

Every delivery may happen twice and any may be lost: tasks are repeatable ticks, never the work.
"""

import logging
from collections.abc import Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

from celery import Celery, bootsteps
from celery.loaders.app import AppLoader
from celery.signals import setup_logging, worker_process_shutdown, worker_shutdown
from celery.worker.components import Pool
from kombu import Queue
from kombu.transport import redis as redis_transport
from typing_extensions import override

from maas.audit.application.flush import HARD_LIMIT, FlushReport
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
    FlushContext,
    build_event_writer,
    build_flush,
    build_head_service,
    deliver_alerts,
    erase_personal_fields,
    prune,
    spool_folder,
    sweep_for_ever,
    watch_trail,
)
from maas.bootstrap import open_platform
from maas.model.infrastructure.charges import book_due
from maas.model.interface.tasks import COLLECT_SERVICE, STORAGE_SERVICE
from maas.model.wiring import collect
from maas.shared.infrastructure.background import BackgroundLoop
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.idempotency import purge_expired
from maas.shared.infrastructure.logging import configure_logging
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import (
    DEFAULT_DATA_DIR,
    AuditSettings,
    RedisSettings,
    Settings,
    load_settings,
)
from maas.shared.infrastructure.task_loop import TaskLoop
from maas.shared.infrastructure.task_queue import (
    QUEUES,
    TICK_EXPIRES_SECONDS,
    VISIBILITY_SECONDS,
    broker_url,
    queue_name,
    transport_options,
)
from maas.shared.interface.tasks import PURGE_SERVICE
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

SOFT_LIMIT_SECONDS: Final = 43
TIME_LIMIT_SECONDS: Final = 45

T = TypeVar("T")

MAIL_INTERVAL: Final = timedelta(seconds=5)
EXPIRY_INTERVAL: Final = timedelta(seconds=5)
QUOTA_INTERVAL: Final = timedelta(seconds=5)
HEAD_INTERVAL: Final = timedelta(seconds=60)
ERASURE_INTERVAL: Final = timedelta(seconds=15)
WATCH_INTERVAL: Final = timedelta(seconds=3)
DELIVERY_INTERVAL: Final = timedelta(seconds=3)
COLLECTION_INTERVAL: Final = timedelta(seconds=60)
STORAGE_INTERVAL: Final = timedelta(seconds=5)
RETENTION_INTERVAL: Final = timedelta(minutes=15)

TALKATIVE: Final = ("celery.app.trace", "celery.beat", "celery.worker.strategy")
"""Loggers with lines for every tick: three a second, day and night, that tell nothing."""


class SteadyQoS(redis_transport.QoS):
    """Kombu's bookkeeping of unacknowledged messages, made to outlive a lost broker.

    When the connection is lost while a task runs, Celery 5.7 closes it twice; the second time Kombu
    5.7 would hand the task's message back over a connection that is gone, and the `AttributeError`
    ends the worker. The message is left to the visibility time-out instead.
    """

    @override
    def restore_unacked_once(self, stderr: Any = None) -> None:
        if getattr(self.channel.connection, "client", None) is not None:
            super().restore_unacked_once(stderr)


class InstalledLoader(AppLoader):
    """Imports what is installed; Celery's own puts the current folder before everything else."""

    @override
    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> Any:
        return self.import_module(module, package=package)

    @override
    def find_module(self, module: str) -> Any:
        return self.import_module(module)


class WorkerApp(Celery):
    """Celery, with the services that tasks look up by name, and what runs beside the tasks."""

    services: Mapping[str, object]
    beside: Sequence[BackgroundLoop]


class BesideStep(bootsteps.StartStopStep):
    """Runs the worker's background loops in its parent process.

    They start once the first children are forked, and before the broker is asked for anything.
    """

    requires: tuple[type[bootsteps.Step] | str, ...] = (Pool,)

    @override
    def start(self, parent: Any) -> None:
        for loop in vars(parent.app)["beside"]:
            loop.start()

    @override
    def close(self, parent: Any) -> None:
        """End them while the tasks still finish: those may take much longer."""
        for loop in vars(parent.app)["beside"]:
            loop.ask_to_stop()

    @override
    def stop(self, parent: Any) -> None:
        for loop in vars(parent.app)["beside"]:
            loop.stop()

    @override
    def terminate(self, parent: Any) -> None:
        for loop in vars(parent.app)["beside"]:
            loop.stop()


def configuration(redis: RedisSettings, audit: AuditSettings) -> dict[str, Any]:
    """Settings of the app; the time limits and the three visibility time-outs belong together."""
    return {
        "broker_url": broker_url(redis),
        "broker_transport_options": transport_options(),
        "result_backend_transport_options": {"visibility_timeout": VISIBILITY_SECONDS},
        "visibility_timeout": VISIBILITY_SECONDS,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "result_accept_content": ["json"],
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "task_soft_time_limit": SOFT_LIMIT_SECONDS,
        "task_time_limit": TIME_LIMIT_SECONDS,
        # Named here, so that a worker started without a list of queues consumes them all.
        "task_queues": [Queue(queue_name(name)) for name in QUEUES],
        "task_default_queue": queue_name("default"),
        # Receivers may be slow, and what fills the trail must not wait for them.
        "task_routes": {
            "audit.deliver": {"queue": queue_name("default")},
            "audit.*": {"queue": queue_name("audit")},
        },
        "worker_hijack_root_logger": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "enable_utc": True,
        "timezone": "UTC",
        "include": [
            "maas.audit.interface.tasks",
            "maas.model.interface.tasks",
            "maas.shared.interface.tasks",
            "maas.user.interface.tasks",
        ],
        # In memory: a schedule of intervals needs no file that a crash could break.
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_max_loop_interval": 1,
        "beat_schedule": {
            "audit.flush": {
                "task": "audit.flush",
                "schedule": timedelta(seconds=audit.flush_interval),
                "options": {"expires": max(TICK_EXPIRES_SECONDS, 2 * audit.flush_interval)},
            },
            "audit.prune": {
                "task": "audit.prune",
                "schedule": timedelta(hours=1),
                "options": {"expires": timedelta(hours=1).total_seconds()},
            },
            "audit.export_head": {
                "task": "audit.export_head",
                "schedule": HEAD_INTERVAL,
                "options": {"expires": HEAD_INTERVAL.total_seconds()},
            },
            "audit.retain": {
                "task": "audit.retain",
                "schedule": RETENTION_INTERVAL,
                "options": {"expires": RETENTION_INTERVAL.total_seconds()},
            },
            "audit.erase_personal": {
                "task": "audit.erase_personal",
                "schedule": ERASURE_INTERVAL,
                "options": {"expires": 2 * ERASURE_INTERVAL.total_seconds()},
            },
            "audit.watch": {
                "task": "audit.watch",
                "schedule": WATCH_INTERVAL,
                "options": {"expires": 2 * WATCH_INTERVAL.total_seconds()},
            },
            "audit.deliver": {
                "task": "audit.deliver",
                "schedule": DELIVERY_INTERVAL,
                "options": {"expires": 2 * DELIVERY_INTERVAL.total_seconds()},
            },
            "quota.expire": {
                "task": "quota.expire",
                "schedule": EXPIRY_INTERVAL,
                "options": {"expires": 2 * EXPIRY_INTERVAL.total_seconds()},
            },
            "quota.tell": {
                "task": "quota.tell",
                "schedule": QUOTA_INTERVAL,
                "options": {"expires": 2 * QUOTA_INTERVAL.total_seconds()},
            },
            "model.collect": {
                "task": "model.collect",
                "schedule": COLLECTION_INTERVAL,
                "options": {"expires": COLLECTION_INTERVAL.total_seconds()},
            },
            "storage.book": {
                "task": "storage.book",
                "schedule": STORAGE_INTERVAL,
                "options": {"expires": 2 * STORAGE_INTERVAL.total_seconds()},
            },
            "mail.send": {
                "task": "mail.send",
                "schedule": MAIL_INTERVAL,
                "options": {"expires": 2 * MAIL_INTERVAL.total_seconds()},
            },
            "sign_in.purge": {
                "task": "sign_in.purge",
                "schedule": timedelta(hours=1),
                "options": {"expires": timedelta(hours=1).total_seconds()},
            },
            "usage.prepare": {
                "task": "usage.prepare",
                "schedule": timedelta(hours=1),
                "options": {"expires": timedelta(hours=1).total_seconds()},
            },
            "idempotency.purge": {
                "task": "idempotency.purge",
                "schedule": timedelta(hours=1),
                "options": {"expires": timedelta(hours=1).total_seconds()},
            },
        },
    }


def _services(settings: Settings, loop: TaskLoop[FlushContext]) -> Mapping[str, object]:
    """What the tasks call, by the names they look it up under."""

    def soon(work: Coroutine[Any, Any, T]) -> T:
        return loop.run(lambda _: work, time_limit=timedelta(seconds=SOFT_LIMIT_SECONDS))

    def flush() -> FlushReport:
        limit = HARD_LIMIT + timedelta(seconds=1)
        return loop.run(lambda context: context.service.run(), time_limit=limit)

    def purge() -> int:
        return soon(purge_expired(settings.database, clock=SystemClock()))

    def send_mails() -> int:
        data_dir = settings.data_dir or DEFAULT_DATA_DIR
        return soon(send_due_mails(settings, data_dir=data_dir, clock=SystemClock()))

    def purge_aids() -> int:
        return soon(purge_sign_in(settings.database, clock=SystemClock()))

    def forget() -> bool:
        return soon(prune(settings.database))

    heads = build_head_service(settings)

    def erase() -> int:
        limit = timedelta(seconds=SOFT_LIMIT_SECONDS)
        return loop.run(lambda context: erase_people(settings, context.redis), time_limit=limit)

    return {
        FLUSH_SERVICE: flush,
        DELIVERY_SERVICE: lambda: soon(deliver_alerts(settings, clock=SystemClock())),
        ERASURE_SERVICE: erase,
        HEAD_SERVICE: lambda: soon(heads.export()),
        PRUNE_SERVICE: forget,
        RETENTION_SERVICE: lambda: soon(retain(settings, clock=SystemClock())).has_more,
        PURGE_SERVICE: purge,
        COLLECT_SERVICE: lambda: soon(collect_artifacts(settings)),
        STORAGE_SERVICE: lambda: soon(book_storage(settings)),
        MAIL_SERVICE: send_mails,
        SIGN_IN_PURGE_SERVICE: purge_aids,
        QUOTA_TELL_SERVICE: lambda: soon(tell_quotas(settings)),
        QUOTA_EXPIRY_SERVICE: lambda: soon(expire_holds(settings.database)),
        USAGE_PREPARE_SERVICE: lambda: soon(prepare_usage(settings.database)),
        WATCH_SERVICE: lambda: soon(watch_trail(settings, clock=SystemClock())),
    }


async def collect_artifacts(settings: Settings) -> None:
    """Free what is due in the artifact store, unless another process is at it."""
    clock = SystemClock()
    await collect(settings, events=build_event_writer(clock), clock=clock)


async def book_storage(settings: Settings) -> int:
    """Tell the quotas of storage that was taken and given back."""
    database = Database(settings.database)
    await database.open()
    budgets = PostgresBudgets(database)
    try:
        return await book_due(settings.database, budgets)
    finally:
        await budgets.close()
        await database.close()


async def digest_for_ever(settings: Settings) -> None:
    """Digest uploads whose bytes did not come in order, until cancelled.

    No task: it takes as long as a file takes to be read, and the state of a hash is nowhere kept.
    """
    async with open_platform(settings) as platform:
        await platform.digests.run()


async def tell_quotas(settings: Settings) -> int:
    """Tell the trail what was reached of quotas since the last time."""
    return await tell_reached(settings.database, events=build_event_writer(SystemClock()))


async def erase_people(settings: Settings, redis: RedisGate) -> int:
    """Erase who is gone from the trail, and from the mails and invitations beside it."""
    data_dir = settings.data_dir or DEFAULT_DATA_DIR

    async def elsewhere(_names: Sequence[str], emails: Sequence[str]) -> None:
        await forget_people(settings, data_dir=data_dir, emails=emails)

    return await erase_personal_fields(
        settings.database,
        clock=SystemClock(),
        redis=redis,
        folder=spool_folder(data_dir),
        elsewhere=elsewhere,
    )


def create_worker(settings: Settings) -> WorkerApp:
    """Build the app; nothing connects before the first task runs."""

    async def close(flush: FlushContext) -> None:
        await flush.close()

    loop = TaskLoop(lambda: build_flush(settings), close)

    def shut_down(**_: object) -> None:
        loop.close()

    def set_up_logging(**_: object) -> None:
        """Log as the API does; Celery leaves logging alone where this is connected."""
        configure_logging(level=settings.effective_log_level, format=settings.log_format)
        if settings.effective_log_level != "DEBUG":
            for name in TALKATIVE:
                logging.getLogger(name).setLevel(logging.WARNING)

    redis_transport.Channel.QoS = SteadyQoS
    setup_logging.connect(set_up_logging, weak=False)
    app = WorkerApp("maas", loader=InstalledLoader)
    app.conf.update(configuration(settings.redis, settings.audit))
    app.services = _services(settings, loop)
    app.beside = (
        BackgroundLoop(lambda: sweep_for_ever(settings), name="maas-sweeper"),
        BackgroundLoop(lambda: digest_for_ever(settings), name="maas-digester"),
    )
    app.steps["worker"].add(BesideStep)
    # Strong references: the handlers are local, and a signal holds its receivers weakly.
    worker_process_shutdown.connect(shut_down, weak=False)
    worker_shutdown.connect(shut_down, weak=False)
    return app


def __getattr__(name: str) -> WorkerApp:
    """Make the app when Celery asks for it: importing this module reads no settings."""
    if name != "app":
        raise AttributeError(name)
    app = create_worker(load_settings())
    globals()[name] = app
    return app
