"""Ticks of identity: mails go out, what has expired goes away."""

from collections.abc import Callable
from typing import cast

from celery import Task, shared_task

from maas.shared.interface.tasks import service_of

MAIL_SERVICE = "mail_send"
SIGN_IN_PURGE_SERVICE = "sign_in_purge"
QUOTA_EXPIRY_SERVICE = "quota_expiry"
QUOTA_TELL_SERVICE = "quota_tell"
USAGE_PREPARE_SERVICE = "usage_prepare"


@shared_task(name="mail.send", bind=True, acks_late=True)
def send_mails(self: "Task[..., None]") -> None:
    """Send the mails that are due; a lost or doubled tick is harmless."""
    cast("Callable[[], int]", service_of(self, MAIL_SERVICE))()


@shared_task(name="quota.expire", bind=True, acks_late=True)
def expire_holds(self: "Task[..., None]") -> None:
    """Settle holds whose lease has passed; each is settled once, whoever comes first."""
    cast("Callable[[], int]", service_of(self, QUOTA_EXPIRY_SERVICE))()


@shared_task(name="sign_in.purge", bind=True, acks_late=True)
def purge_sign_in_aids(self: "Task[..., None]") -> None:
    """Forget links and counters that have expired; running twice changes nothing more."""
    cast("Callable[[], int]", service_of(self, SIGN_IN_PURGE_SERVICE))()


@shared_task(name="quota.tell", bind=True, acks_late=True)
def tell_quotas(self: "Task[..., None]") -> None:
    """Write events of what was reached of quotas; each is told by one tick alone."""
    cast("Callable[[], int]", service_of(self, QUOTA_TELL_SERVICE))()


@shared_task(name="usage.prepare", bind=True, acks_late=True)
def prepare_usage(self: "Task[..., None]") -> None:
    """Make the ledger's next months; those that are there stay as they are."""
    cast("Callable[[], int]", service_of(self, USAGE_PREPARE_SERVICE))()
