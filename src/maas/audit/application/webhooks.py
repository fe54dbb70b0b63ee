"""Webhooks as a tenant's administrators see to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Protocol, Self
from uuid import UUID

from typing_extensions import TypedDict, Unpack

from maas.audit.application.alerts import spell_test
from maas.audit.application.deliveries import MessageSender, Recipient
from maas.audit.application.rules import WatchUnitOfWork
from maas.audit.application.webhooks_tests import (
    NAMES_BUSY,
    WebhookTestUnavailableError,
    make_running_tests,
)
from maas.audit.domain.rules import RuleName
from maas.audit.domain.webhooks import (
    MAX_WEBHOOKS,
    TooManyWebhooksError,
    Webhook,
    WebhookId,
    WebhookStatus,
    spell_secret,
)
from maas.audit.public import AuditedResource, ChangeValue, current_scope
from maas.shared.application.running import RunningTests
from maas.shared.domain.clock import Clock
from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.ids import TenantId, new_id
from maas.shared.domain.page import Page, PageRequest
from maas.shared.domain.principal import Principal

WEBHOOK = AuditedResource(
    "webhook",
    frozenset(
        {
            "name",
            "target",
            "url_digest",
            "rules",
            "status",
            "secret_rotated",
            "test_status",
            "test_error",
        }
    ),
)
"""`target` is scheme, host and port: a path may tell who may call it.

`url_digest` shows only that the rest changed, or is the same.
"""

CheckVersion = Callable[[int], None]


class InvalidWebhookUrlError(InvalidInputError):
    code = "invalid-webhook-url"
    title = "The URL cannot be called"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, loc=("body", "url"))


class WebhookChanges(TypedDict, total=False):
    """What may be changed of a webhook; what is absent stays."""

    name: str
    url: str
    rules: Sequence[RuleName]
    status: WebhookStatus


# No slots: a subclass adds a field.
@dataclass(frozen=True, kw_only=True)
class WebhookDetails:
    """A webhook without its secret. `failures` counts those in a row, `pending` what waits."""

    id: WebhookId
    name: str
    url: str
    rules: Sequence[RuleName]
    status: WebhookStatus
    status_reason: str | None
    failures: int
    pending: int
    next_attempt_at: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        """Show a webhook whose queue was not looked at, for none of it waits."""
        return cls(
            id=webhook.id,
            name=webhook.name,
            url=webhook.url,
            rules=list(webhook.rules),
            status=webhook.status,
            status_reason=webhook.status_reason,
            failures=0,
            pending=0,
            next_attempt_at=None,
            created_at=webhook.created_at,
            updated_at=webhook.updated_at,
            version=webhook.version,
        )


@dataclass(frozen=True, kw_only=True)
class WebhookWithSecret(WebhookDetails):
    """A webhook with its new secret, which is shown this once."""

    secret: str

    @classmethod
    def showing(cls, details: WebhookDetails, secret: bytes) -> Self:
        shown = {each.name: getattr(details, each.name) for each in fields(WebhookDetails)}
        return cls(**shown, secret=spell_secret(secret))


@dataclass(frozen=True, slots=True, kw_only=True)
class TestOutcome:
    """What a test came to; `message` says what to do if it failed."""

    __test__ = False

    delivery_id: UUID
    is_success: bool
    status: int | None
    error: str | None
    message: str
    duration_ms: int


class SecretBox(Protocol):
    def make(self) -> bytes:
        """Make a secret."""
        ...

    def seal(self, secret: bytes, webhook_id: WebhookId, tenant_id: TenantId) -> bytes: ...

    def replace(self, sealed: bytes, webhook_id: WebhookId, tenant_id: TenantId) -> bytes | None:
        """Seal a secret as the one before, if it can still be read."""
        ...


class UrlCheck(Protocol):
    def __call__(self, url: str) -> str | None:
        """Tell why a URL may not be called, or nothing if it may."""
        ...


class WebhookQueries(Protocol):
    async def list_webhooks(
        self, tenant_id: TenantId, page: PageRequest
    ) -> Page[WebhookDetails]: ...

    async def get_webhook(self, tenant_id: TenantId, webhook_id: WebhookId) -> WebhookDetails:
        """Show one.

        Raises:
            WebhookNotFoundError: the tenant has none of this id.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookService:
    unit_of_work: Callable[[], WatchUnitOfWork]
    queries: WebhookQueries
    secrets: SecretBox
    sender: MessageSender
    complain: UrlCheck
    digest: Callable[[str], str]
    clock: Clock
    tests: RunningTests[WebhookId] = field(default_factory=make_running_tests)

    async def create(
        self, principal: Principal, *, name: str, url: str, rules: Sequence[RuleName]
    ) -> WebhookWithSecret:
        """Make a webhook with a secret that is told this once.

        Raises:
            InvalidWebhookUrlError, TooManyWebhooksError.
        """
        self._check_url(url)
        webhook_id, now = WebhookId(new_id()), self.clock.now()
        secret = self.secrets.make()
        webhook = Webhook(
            id=webhook_id,
            tenant_id=principal.tenant_id,
            name=name,
            url=url,
            rules=sorted(set(rules)),
            status="active",
            status_reason=None,
            secret=self.secrets.seal(secret, webhook_id, principal.tenant_id),
            previous_secret=None,
            previous_until=None,
            created_at=now,
            updated_at=now,
        )
        made = WebhookWithSecret.showing(WebhookDetails.of(webhook), secret)
        async with self.unit_of_work() as uow:
            if await uow.webhooks.count() >= MAX_WEBHOOKS:
                raise TooManyWebhooksError
            await uow.webhooks.add(webhook, at=now)
            current_scope().change(WEBHOOK, webhook_id, after=self._trail(webhook))
            await uow.commit(made)
        return made

    async def revise(
        self, webhook_id: WebhookId, *, check: CheckVersion, **changes: Unpack[WebhookChanges]
    ) -> WebhookDetails:
        """Set what is given, leave the rest; what waits is tried at once.

        Raises:
            WebhookNotFoundError, InvalidWebhookUrlError.
        """
        if "url" in changes:
            self._check_url(changes["url"])
        now = self.clock.now()
        async with self.unit_of_work() as uow:
            webhook = await uow.webhooks.get(webhook_id)
            current_scope().resource(WEBHOOK, webhook_id)
            check(webhook.version)
            before = self._trail(webhook)
            webhook.revise(
                name=changes.get("name", webhook.name),
                url=changes.get("url", webhook.url),
                rules=changes.get("rules", webhook.rules),
                status=changes.get("status", webhook.status),
                at=now,
            )
            await uow.webhooks.hurry(webhook, at=now)
            current_scope().change(WEBHOOK, webhook_id, before=before, after=self._trail(webhook))
            await uow.commit()
        return await self.queries.get_webhook(webhook.tenant_id, webhook_id)

    async def rotate(self, webhook_id: WebhookId, *, check: CheckVersion) -> WebhookWithSecret:
        """Give it a new secret; for a day the old one signs as well.

        Raises:
            WebhookNotFoundError.
        """
        secret = self.secrets.make()
        async with self.unit_of_work() as uow:
            webhook = await uow.webhooks.get(webhook_id)
            current_scope().resource(WEBHOOK, webhook_id)
            check(webhook.version)
            place = (webhook_id, webhook.tenant_id)
            webhook.rotate(
                self.secrets.seal(secret, *place),
                previous=self.secrets.replace(webhook.secret, *place),
                at=self.clock.now(),
            )
            current_scope().change(WEBHOOK, webhook_id, after={"secret_rotated": True})
            await uow.commit()
        details = await self.queries.get_webhook(webhook.tenant_id, webhook_id)
        return WebhookWithSecret.showing(details, secret)

    async def delete(self, webhook_id: WebhookId, *, check: CheckVersion) -> None:
        """Delete it with its log; what waited for it is not sent any more.

        Raises:
            WebhookNotFoundError.
        """
        async with self.unit_of_work() as uow:
            webhook = await uow.webhooks.get(webhook_id)
            current_scope().resource(WEBHOOK, webhook_id)
            check(webhook.version)
            current_scope().change(WEBHOOK, webhook_id, before=self._trail(webhook))
            await uow.webhooks.remove(webhook)
            await uow.commit()

    async def test(self, webhook_id: WebhookId) -> TestOutcome:
        """Send a signed test now, past the queue, and note it in the log.

        Raises:
            WebhookNotFoundError, TooManyWebhookTestsError, WebhookTestUnavailableError.
        """
        async with self.unit_of_work() as uow:
            webhook = await uow.webhooks.get(webhook_id)
        current_scope().resource(WEBHOOK, webhook_id)
        with self.tests.one(webhook.tenant_id, webhook_id):
            return await self._test(webhook)

    async def _test(self, webhook: Webhook) -> TestOutcome:
        webhook_id, delivery_id, begun = webhook.id, new_id(), self.clock.now()
        still_signs = webhook.previous_until is not None and webhook.previous_until > begun
        # Nothing is held open meanwhile: a receiver may take its time.
        attempt = await self.sender.send(
            Recipient(
                webhook_id=webhook.id,
                tenant_id=webhook.tenant_id,
                url=webhook.url,
                secret=webhook.secret,
                previous_secret=webhook.previous_secret if still_signs else None,
            ),
            message_id=delivery_id,
            body=spell_test(webhook.tenant_id, at=begun),
            at=begun,
        )
        if attempt.error == NAMES_BUSY:
            raise WebhookTestUnavailableError
        async with self.unit_of_work() as uow:
            # Again, for it may be gone by now.
            await uow.webhooks.get(webhook_id)
            await uow.webhooks.note_test(webhook, delivery_id, attempt, at=begun)
            current_scope().change(
                WEBHOOK,
                webhook_id,
                after={"test_status": attempt.status, "test_error": attempt.error},
            )
            await uow.commit()
        return TestOutcome(
            delivery_id=delivery_id,
            is_success=attempt.is_success,
            status=attempt.status,
            error=attempt.error,
            message=attempt.message,
            duration_ms=round(attempt.took.total_seconds() * 1000),
        )

    def _check_url(self, url: str) -> None:
        complaint = self.complain(url)
        if complaint is not None:
            raise InvalidWebhookUrlError(complaint)

    def _trail(self, webhook: Webhook) -> dict[str, ChangeValue]:
        return {
            "name": webhook.name,
            "target": target_of(webhook.url),
            "url_digest": self.digest(webhook.url),
            "rules": tuple(webhook.rules),
            "status": webhook.status,
        }


def target_of(url: str) -> str:
    """Tell scheme, host and port of a URL."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0].partition('?')[0]}"


def mask(url: str) -> str:
    """Hide what comes after the host: it may be what lets one call it."""
    target = target_of(url)
    return url if url.removeprefix(target) in {"", "/"} else f"{target}/***"
