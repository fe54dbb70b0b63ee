"""Tasks that belong to no context, and how any task finds the service it calls."""

from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

from celery import Task, shared_task

SealingCheck: TypeAlias = Callable[[str | None, str | None], tuple[str, str] | None]
"""Goes from a column and row on, and tells where it stopped."""

PURGE_SERVICE = "idempotency_purge"
"""The name under which the worker's app keeps the purge in `services`."""

REWRAP_SERVICE = "sealing_rewrap"
SEALING_CHECK_SERVICE = "sealing_check"

REWRAP_AGAIN_SECONDS = 60
CHECK_AGAIN_SECONDS = 600


def service_of(task: "Task[..., object]", name: str) -> object:
    """Look a service up that the worker's app was built with."""
    services: Mapping[str, object] = vars(task.app)["services"]
    return services[name]


@shared_task(name="idempotency.purge", bind=True, acks_late=True)
def purge_idempotency(self: "Task[..., None]") -> None:
    """Forget answers whose Idempotency-Key has expired; running twice changes nothing more."""
    purge = cast("Callable[[], int]", service_of(self, PURGE_SERVICE))
    purge()


@shared_task(name="sealing.rewrap", bind=True, acks_late=True)
def rewrap_sealed(self: "Task[..., None]") -> None:
    """Hand kept secrets over to the current key slice by slice; come again while there is more."""
    has_more = cast("Callable[[], bool]", service_of(self, REWRAP_SERVICE))()
    if has_more:
        self.apply_async(expires=REWRAP_AGAIN_SECONDS)


@shared_task(name="sealing.check", bind=True, acks_late=True)
def check_sealed(
    self: "Task[..., None]", *, column: str | None = None, after: str | None = None
) -> None:
    """Try to open every kept secret, and go on from where it stopped; each fault is told once."""
    check = cast("SealingCheck", service_of(self, SEALING_CHECK_SERVICE))
    stopped = check(column, after)
    if stopped is not None:
        self.apply_async(
            kwargs={"column": stopped[0], "after": stopped[1]}, expires=CHECK_AGAIN_SECONDS
        )
