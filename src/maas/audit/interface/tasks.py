"""The tick that moves the trail along."""

from celery import Task, shared_task

from maas.audit.interface.dependencies import flush_of


@shared_task(name="audit.flush", bind=True, acks_late=True)
def flush_audit(self: "Task[..., None]") -> None:
    """Flush what waits; a lost or doubled tick is harmless."""
    flush_of(self)()
