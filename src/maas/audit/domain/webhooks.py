"""Webhooks: where alerts are sent, how they are signed, and when a delivery is tried again.

Signed as Standard Webhooks has it: HMAC-SHA256 over id, time and body, with dots between.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, NewType, Protocol, TypeAlias
from uuid import UUID

from maas.audit.domain.rules import RuleName
from maas.shared.domain.errors import NotFoundError, RuleViolatedError
from maas.shared.domain.ids import TenantId

WebhookId = NewType("WebhookId", UUID)
WebhookStatus: TypeAlias = Literal["active", "disabled"]

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  what secrets begin with, and none itself
SECRET_BYTES: Final = 32
MAX_WEBHOOKS: Final = 20
OLD_SECRET_LIFETIME: Final = timedelta(hours=24)
"""How long a secret that was replaced signs beside the new one."""

FIRST_WAIT: Final = timedelta(seconds=5)
LONGEST_WAIT: Final = timedelta(minutes=5)
DELIVERY_LIFETIME: Final = timedelta(days=3)
"""A delivery that has not succeeded for so long is given up."""

MAX_PENDING: Final = 10_000
"""More deliveries do not wait for one webhook; what comes then fails at once."""

GONE: Final = 410

_MAX_DOUBLINGS: Final = 10


class WebhookNotFoundError(NotFoundError):
    code = "webhook-not-found"
    title = "No such webhook"


class TooManyWebhooksError(RuleViolatedError):
    code = "too-many-webhooks"
    title = "The tenant has as many webhooks as it may"

    def __init__(self) -> None:
        super().__init__(f"A tenant has {MAX_WEBHOOKS} webhooks at most: delete one first.")


@dataclass(eq=False, kw_only=True)
class Webhook:
    """Where one tenant's alerts go. Secrets are sealed; without `rules` it hears of them all."""

    id: WebhookId
    tenant_id: TenantId
    name: str
    url: str
    rules: list[RuleName]
    status: WebhookStatus
    status_reason: str | None
    secret: bytes
    previous_secret: bytes | None
    previous_until: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int = 1

    def revise(
        self,
        *,
        name: str,
        url: str,
        rules: Sequence[RuleName],
        status: WebhookStatus,
        at: datetime,
    ) -> None:
        self.name, self.url, self.rules = name, url, sorted(set(rules))
        if status != self.status:
            self.status_reason = None
        self.status = status
        self._touch(at)

    def rotate(self, secret: bytes, *, previous: bytes | None, at: datetime) -> None:
        """Take a new secret; the old one, if it can be read, signs beside it for a day."""
        self.previous_secret = previous
        self.previous_until = None if previous is None else at + OLD_SECRET_LIFETIME
        self.secret = secret
        self._touch(at)

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.version += 1


class WebhookRepository(Protocol):
    async def get(self, webhook_id: WebhookId) -> Webhook:
        """Load the webhook, locked.

        Raises:
            WebhookNotFoundError: the tenant has none of this id.
        """
        ...

    async def count(self) -> int:
        """Count the tenant's webhooks, and let nobody add one until the transaction ends."""
        ...

    async def add(self, webhook: Webhook, *, at: datetime) -> None:
        """Add it, with an empty queue that is due at once."""
        ...

    async def hurry(self, webhook: Webhook, *, at: datetime) -> None:
        """Let what waits be tried at once, whatever failed before."""
        ...

    async def remove(self, webhook: Webhook) -> None: ...


def spell_secret(secret: bytes) -> str:
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def sign(secrets: Sequence[bytes], *, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Make the headers that prove a message; one signature a secret, the newest first."""
    timestamp = str(int(at.timestamp()))
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [
        "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
        for secret in secrets
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }


def wait_after(failures: int) -> timedelta:
    """Tell how long to wait after so many failures in a row: 5 s, doubled up to 5 min."""
    doublings = min(max(failures - 1, 0), _MAX_DOUBLINGS)
    return min(FIRST_WAIT * (1 << doublings), LONGEST_WAIT)
