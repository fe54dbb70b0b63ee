"""The ticks that move the trail along, and personal fields out of it."""

from collections.abc import Callable
from typing import cast

from celery import Task, shared_task

from maas.audit.application.flush import FlushRunner
from maas.shared.interface.tasks import service_of

FLUSH_SERVICE = "audit_flush"
"""The name under which the worker's app keeps the flush in `services`."""

ERASURE_SERVICE = "audit_erasure"
PRUNE_SERVICE = "audit_prune"
HEAD_SERVICE = "audit_head"
RETENTION_SERVICE = "audit_retention"

WATCH_SERVICE = "audit_watch"
DELIVERY_SERVICE = "audit_delivery"

PRUNE_AGAIN_SECONDS = 600
RETAIN_AGAIN_SECONDS = 600


@shared_task(name="audit.flush", bind=True, acks_late=True)
def flush_audit(self: "Task[..., None]") -> None:
    """Flush what waits; a lost or doubled tick is harmless."""
    flush = cast("FlushRunner", service_of(self, FLUSH_SERVICE))
    flush()


@shared_task(name="audit.prune", bind=True, acks_late=True)
def prune_audit(self: "Task[..., None]") -> None:
    """Forget old event ids slice by slice, and come again if that took too long."""
    has_more = cast("Callable[[], bool]", service_of(self, PRUNE_SERVICE))()
    if has_more:
        self.apply_async(expires=PRUNE_AGAIN_SECONDS)


@shared_task(name="audit.export_head", bind=True, acks_late=True)
def export_head(self: "Task[..., None]") -> None:
    """Note the newest checkpoint outside of the database, if it is another one."""
    cast("Callable[[], bool]", service_of(self, HEAD_SERVICE))()


@shared_task(name="audit.erase_personal", bind=True, acks_late=True)
def erase_personal(self: "Task[..., None]") -> None:
    """Erase what is asked for; running twice changes nothing more."""
    cast("Callable[[], int]", service_of(self, ERASURE_SERVICE))()


@shared_task(name="audit.retain", bind=True, acks_late=True)
def retain_audit(self: "Task[..., None]") -> None:
    """Drop what the policy no longer keeps, slice by slice, and come again while there is more."""
    has_more = cast("Callable[[], bool]", service_of(self, RETENTION_SERVICE))()
    if has_more:
        self.apply_async(expires=RETAIN_AGAIN_SECONDS)


@shared_task(name="audit.watch", bind=True, acks_late=True)
def watch_trail(self: "Task[..., None]") -> None:
    """Judge what is new in the log; two at once do no more than one."""
    cast("Callable[[], int]", service_of(self, WATCH_SERVICE))()


@shared_task(name="audit.deliver", bind=True, acks_late=True)
def deliver_alerts(self: "Task[..., None]") -> None:
    """Send what waits for webhooks; two at once do no more than one."""
    cast("Callable[[], int]", service_of(self, DELIVERY_SERVICE))()
