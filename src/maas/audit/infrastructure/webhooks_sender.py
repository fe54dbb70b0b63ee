"""Sending to webhooks through the guarded client, signed with secrets that are kept sealed."""

import hashlib
import hmac
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from maas.audit.application.deliveries import Attempt, Recipient
from maas.audit.domain.webhooks import SECRET_BYTES, WebhookId, sign
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.outgoing import OutgoingClient, OutgoingLimits
from maas.shared.infrastructure.outgoing_faults import OutgoingError
from maas.shared.infrastructure.outgoing_targets import RefusedTargetError, Targets
from maas.shared.infrastructure.sealing import Sealer, SecretUnreadableError
from maas.shared.infrastructure.sealing_upkeep import SealedColumn

LIMITS: Final = OutgoingLimits(
    connect=timedelta(seconds=5),
    idle=timedelta(seconds=5),
    total=timedelta(seconds=5),
    max_bytes=0,
)
"""The head of an answer is all that is read. Who is slower has failed: he keeps a place busy."""

SECRET: Final = SealedColumn(table="audit_webhooks", column="secret")
# The release before moved a secret to the other column as it was.
PREVIOUS_SECRET: Final = SealedColumn(
    table="audit_webhooks", column="previous_secret", former=SECRET.column
)
SEALED: Final = (SECRET, PREVIOUS_SECRET)

DIGEST_KEY_BYTES: Final = 32
DIGEST_CHARS: Final = 32

_REFUSALS: Final[Mapping[int, str]] = {
    401: "The receiver wants to know who calls: check the signature with the secret shown once.",
    403: "The receiver refuses: is the secret the right one, and is this address let through?",
    404: "The receiver knows no such path: check the URL.",
    405: "The receiver takes no POST on this path: check the URL.",
    410: "The receiver wants nothing any more.",
    429: "The receiver is called too often; it is tried again later.",
}
_ABOUT_NAMES: Final = frozenset({"dns", "refused-target"})
"""Told apart only to the operator: it would tell which names there are inside."""

_REDIRECTS: Final = range(300, 400)
_SUCCESSES: Final = range(200, 300)
_SERVER_ERRORS: Final = range(500, 600)

log = structlog.get_logger(__name__)


class WebhookSecrets:
    """Makes secrets, and keeps each sealed to its row and column."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def make(self) -> bytes:
        return os.urandom(SECRET_BYTES)

    def seal(self, secret: bytes, webhook_id: WebhookId, tenant_id: TenantId) -> bytes:
        return self._sealer.seal(secret, SECRET.place(webhook_id, tenant_id))

    def open(self, sealed: bytes, webhook_id: WebhookId, tenant_id: TenantId) -> bytes:
        """Read a secret.

        Raises:
            SecretUnreadableError: it was sealed under a key that is gone.
        """
        return self._sealer.open(sealed, SECRET.place(webhook_id, tenant_id))

    def replace(self, sealed: bytes, webhook_id: WebhookId, tenant_id: TenantId) -> bytes | None:
        # It may be why the secret is replaced that it cannot be read.
        with suppress(SecretUnreadableError):
            secret = self.open(sealed, webhook_id, tenant_id)
            return self._sealer.seal(secret, PREVIOUS_SECRET.place(webhook_id, tenant_id))
        return None

    def open_previous(self, sealed: bytes, webhook_id: WebhookId, tenant_id: TenantId) -> bytes:
        """Read a secret that was replaced.

        Raises:
            SecretUnreadableError: as `open` does.
        """
        return self._sealer.open_at(sealed, PREVIOUS_SECRET.places(webhook_id, tenant_id))


class WebhookSender:
    """The `MessageSender` port. Of an answer nothing is kept but its status."""

    def __init__(self, client: OutgoingClient, secrets: WebhookSecrets) -> None:
        self._client = client
        self._secrets = secrets

    async def send(
        self, recipient: Recipient, *, message_id: UUID, body: bytes, at: datetime
    ) -> Attempt:
        begun = time.monotonic()
        try:
            headers = sign(
                self._keys(recipient), message_id=f"msg_{message_id.hex}", at=at, body=body
            )
        except SecretUnreadableError:
            return _failure(
                "secret-unreadable",
                "The secret cannot be read since the server's key was changed: rotate it.",
                begun=begun,
            )
        headers["Content-Type"] = "application/json"
        try:
            async with self._client.open(
                "POST", recipient.url, limits=LIMITS, headers=headers, body=body
            ) as response:
                return _judge(response.status, begun=begun)
        except OutgoingError as exc:
            if exc.fault not in _ABOUT_NAMES:
                return _failure(exc.fault, exc.message, begun=begun)
            log.info(
                "audit_webhook_not_called",
                webhook_id=str(recipient.webhook_id),
                tenant_id=str(recipient.tenant_id),
                fault=exc.fault,
            )
            return _failure(
                "no-public-address",
                "The host leads to no address that may be called: is its name spelled right?",
                begun=begun,
            )

    def _keys(self, recipient: Recipient) -> list[bytes]:
        place = (recipient.webhook_id, recipient.tenant_id)
        keys = [self._secrets.open(recipient.secret, *place)]
        if recipient.previous_secret is not None:
            # The new one signs whatever became of the old.
            with suppress(SecretUnreadableError):
                keys.append(self._secrets.open_previous(recipient.previous_secret, *place))
        return keys


def make_url_digest(secret: str) -> Callable[[str], str]:
    """Make a digest for the trail from the server's key: without it a path could be guessed."""
    derivation = HKDF(
        algorithm=SHA256(), length=DIGEST_KEY_BYTES, salt=None, info=b"maas webhook url"
    )
    key = derivation.derive(secret.encode())

    def digest(url: str) -> str:
        return hmac.digest(key, url.encode(), hashlib.sha256).hex()[:DIGEST_CHARS]

    return digest


def complain_about(targets: Targets, url: str) -> str | None:
    """Tell why a URL may not be called, or nothing if it may."""
    try:
        targets.check(url)
    except RefusedTargetError as exc:
        return exc.message
    return None


def _judge(status: int, *, begun: float) -> Attempt:
    took = timedelta(seconds=time.monotonic() - begun)
    if status in _SUCCESSES:
        return Attempt(status=status, error=None, message="The receiver took it.", took=took)
    if status in _REDIRECTS:
        message = "The receiver redirects, which is not followed: set the URL it names."
        return Attempt(status=status, error="redirect", message=message, took=took)
    message = _REFUSALS.get(status, f"The receiver answered {status}.")
    if status in _SERVER_ERRORS:
        message = f"The receiver failed with {status}: look into its log."
    return Attempt(status=status, error="status", message=message, took=took)


def _failure(error: str, message: str, *, begun: float) -> Attempt:
    took = timedelta(seconds=time.monotonic() - begun)
    return Attempt(status=None, error=error, message=message, took=took)
