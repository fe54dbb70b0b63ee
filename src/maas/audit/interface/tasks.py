"""The tick that moves the trail along."""

from typing import cast

from celery import Task, shared_task

from maas.audit.application.flush import FlushRunner
from maas.shared.interface.tasks import service_of

FLUSH_SERVICE = "audit_flush"
"""The name under which the worker's app keeps the flush in `services`."""


@shared_task(name="audit.flush", bind=True, acks_late=True)
def flush_audit(self: "Task[..., None]") -> None:
    """Flush what waits; a lost or doubled tick is harmless."""
    flush = cast("FlushRunner", service_of(self, FLUSH_SERVICE))
    flush()
