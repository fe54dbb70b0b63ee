"""How many tests of webhooks run at once: each calls whom a tenant names, and may hang."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from maas.audit.domain.webhooks import WebhookId
from maas.shared.domain.errors import TooManyRequestsError, UnavailableError
from maas.shared.domain.ids import TenantId

TESTS_AT_ONCE: Final = 2
"""Of a tenant, in a process."""

NAMES_BUSY: Final = "busy"
"""What an attempt says that found no thread to look up its name with."""

_RETRY_AFTER: Final = timedelta(seconds=5)


class TooManyWebhookTestsError(TooManyRequestsError):
    code = "too-many-webhook-tests"
    title = "Wait until a test is done"

    def __init__(self) -> None:
        detail = f"A webhook has one test at a time, a tenant {TESTS_AT_ONCE}."
        super().__init__(detail, retry_after=_RETRY_AFTER)


class WebhookTestUnavailableError(UnavailableError):
    code = "webhook-test-unavailable"
    title = "Too many names are being looked up to test it now"

    def __init__(self) -> None:
        super().__init__(retry_after=timedelta(minutes=1))


class RunningTests:
    """Those of one process."""

    def __init__(self) -> None:
        self._webhooks: set[WebhookId] = set()
        self._tenants: Counter[TenantId] = Counter()

    @contextmanager
    def one(self, webhook_id: WebhookId, tenant_id: TenantId) -> Iterator[None]:
        """Take a place as long as a test runs.

        Raises:
            TooManyWebhookTestsError: there is none.
        """
        if webhook_id in self._webhooks or self._tenants[tenant_id] >= TESTS_AT_ONCE:
            raise TooManyWebhookTestsError
        self._webhooks.add(webhook_id)
        self._tenants[tenant_id] += 1
        try:
            yield
        finally:
            self._webhooks.remove(webhook_id)
            self._tenants[tenant_id] -= 1
            # None is left of a tenant that tests nothing.
            self._tenants += Counter()
