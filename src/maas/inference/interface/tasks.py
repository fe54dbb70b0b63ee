"""Ticks of inference: what is kept for a time goes when it is over."""

from collections.abc import Callable
from typing import cast

from celery import Task, shared_task

from maas.shared.interface.tasks import service_of

CAPTURE_PRUNE_SERVICE = "capture_prune"


@shared_task(name="capture.prune", bind=True, acks_late=True)
def prune_captures(self: "Task[..., None]") -> None:
    """Delete prompts and answers whose time is over; what is left, the next tick deletes."""
    cast("Callable[[], int]", service_of(self, CAPTURE_PRUNE_SERVICE))()
