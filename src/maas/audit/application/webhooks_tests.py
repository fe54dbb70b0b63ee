"""How many tests of webhooks run at once: each calls whom a tenant names, and may hang."""

from datetime import timedelta
from typing import Final

from maas.audit.domain.webhooks import WebhookId
from maas.shared.application.running import RunningTests
from maas.shared.domain.errors import TooManyRequestsError, UnavailableError

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


def make_running_tests() -> RunningTests[WebhookId]:
    return RunningTests(of_tenant=TESTS_AT_ONCE, refuse=TooManyWebhookTestsError)
