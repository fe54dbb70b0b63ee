"""Ticks of the registry: what nobody needs any more is freed, and suppliers are watched."""

from collections.abc import Callable
from typing import cast

from celery import Task, shared_task

from maas.shared.interface.tasks import service_of

COLLECT_SERVICE = "model_collect"
STORAGE_SERVICE = "storage_book"
WATCH_PROVIDERS_SERVICE = "provider_check"


@shared_task(name="model.collect", bind=True, acks_late=True)
def collect(self: "Task[..., None]") -> None:
    """Free what is due in the artifact store; killed anywhere, the next tick does the rest."""
    cast("Callable[[], None]", service_of(self, COLLECT_SERVICE))()


@shared_task(name="provider.check", bind=True, acks_late=True)
def check_providers(self: "Task[..., None]") -> None:
    """Ask suppliers whether they answer; who is not reached in time comes first the next time."""
    cast("Callable[[], int]", service_of(self, WATCH_PROVIDERS_SERVICE))()


@shared_task(name="storage.book", bind=True, acks_late=True)
def book_storage(self: "Task[..., None]") -> None:
    """Tell the quotas of files that came and went; what is told twice is booked once."""
    cast("Callable[[], int]", service_of(self, STORAGE_SERVICE))()
