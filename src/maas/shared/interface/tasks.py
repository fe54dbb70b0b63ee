"""Tasks that belong to no context, and how any task finds the service it calls."""

from collections.abc import Callable, Mapping
from typing import cast

from celery import Task, shared_task

PURGE_SERVICE = "idempotency_purge"
"""The name under which the worker's app keeps the purge in `services`."""


def service_of(task: "Task[..., object]", name: str) -> object:
    """Look a service up that the worker's app was built with."""
    services: Mapping[str, object] = vars(task.app)["services"]
    return services[name]


@shared_task(name="idempotency.purge", bind=True, acks_late=True)
def purge_idempotency(self: "Task[..., None]") -> None:
    """Forget answers whose Idempotency-Key has expired; running twice changes nothing more."""
    purge = cast("Callable[[], int]", service_of(self, PURGE_SERVICE))
    purge()
