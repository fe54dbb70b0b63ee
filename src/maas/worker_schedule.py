"""Celery's settings: queues, time limits, and what beat asks for how often."""

from datetime import timedelta
from typing import Any, Final

from kombu import Queue

from maas.shared.infrastructure.settings import AuditSettings, RedisSettings, SupplierSettings
from maas.shared.infrastructure.task_queue import (
    QUEUES,
    TICK_EXPIRES_SECONDS,
    VISIBILITY_SECONDS,
    broker_url,
    queue_name,
    transport_options,
)

SOFT_LIMIT_SECONDS: Final = 43
TIME_LIMIT_SECONDS: Final = 45

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
REWRAP_INTERVAL: Final = timedelta(seconds=30)
SEALING_CHECK_INTERVAL: Final = timedelta(minutes=5)


def configuration(
    redis: RedisSettings, audit: AuditSettings, suppliers: SupplierSettings
) -> dict[str, Any]:
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
            "maas.inference.interface.tasks",
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
            **_watch(suppliers),
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
            "sealing.rewrap": {
                "task": "sealing.rewrap",
                "schedule": REWRAP_INTERVAL,
                "options": {"expires": REWRAP_INTERVAL.total_seconds()},
            },
            "sealing.check": {
                "task": "sealing.check",
                "schedule": SEALING_CHECK_INTERVAL,
                "options": {"expires": SEALING_CHECK_INTERVAL.total_seconds()},
            },
            "capture.prune": {
                "task": "capture.prune",
                "schedule": timedelta(hours=1),
                "options": {"expires": timedelta(hours=1).total_seconds()},
            },
            "replay.prune": {
                "task": "replay.prune",
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


def _watch(suppliers: SupplierSettings) -> dict[str, Any]:
    seconds = suppliers.check_seconds
    if seconds == 0:
        return {}
    tick = {
        "task": "provider.check",
        "schedule": timedelta(seconds=seconds),
        "options": {"expires": max(TICK_EXPIRES_SECONDS, seconds)},
    }
    return {"provider.check": tick}
