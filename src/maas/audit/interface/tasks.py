"""The ticks that move the trail along, and personal fields out of it."""

from collections.abc import Callable
from typing import cast

from celery import Task, shared_task

from maas.audit.application.flush import FlushRunner
from maas.shared.interface.tasks import service_of

FLUSH_SERVICE = "audit_flush"
"""The name under which the worker's app keeps the flush in `services`."""

ERASURE_SERVICE = "audit_erasure"


@shared_task(name="audit.flush", bind=True, acks_late=True)
def flush_audit(self: "Task[..., None]") -> None:
    """Flush what waits; a lost or doubled tick is harmless."""
    flush = cast("FlushRunner", service_of(self, FLUSH_SERVICE))
    flush()


@shared_task(name="audit.erase_personal", bind=True, acks_late=True)
def erase_personal(self: "Task[..., None]") -> None:
    """Erase what is asked for; running twice changes nothing more."""
    cast("Callable[[], int]", service_of(self, ERASURE_SERVICE))()
