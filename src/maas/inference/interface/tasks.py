"""Ticks of inference: what is kept for a time goes when it is over."""

from collections.abc import Callable
from typing import cast

from celery import Task, shared_task

from maas.shared.interface.tasks import service_of

CAPTURE_PRUNE_SERVICE = "capture_prune"
REPLAY_PRUNE_SERVICE = "replay_prune"


@shared_task(name="capture.prune", bind=True, acks_late=True)
def prune_captures(self: "Task[..., None]") -> None:
    """Delete prompts and answers whose time is over; what is left, the next tick deletes."""
    cast("Callable[[], int]", service_of(self, CAPTURE_PRUNE_SERVICE))()


@shared_task(name="replay.prune", bind=True, acks_late=True)
def prune_replays(self: "Task[..., None]") -> None:
    """Forget Idempotency-Keys of calls of over a day ago; running twice changes nothing more."""
    cast("Callable[[], int]", service_of(self, REPLAY_PRUNE_SERVICE))()
