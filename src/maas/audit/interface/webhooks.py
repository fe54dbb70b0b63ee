"""Where alerts are sent, and what became of sending them."""

from dataclasses import replace
from typing import cast

from fastapi import APIRouter, Response

from maas.audit.application.deliveries import DeliveryStatus
from maas.audit.application.webhooks import (
    WEBHOOK,
    InvalidWebhookUrlError,
    WebhookChanges,
    WebhookDetails,
    mask,
)
from maas.audit.application.webhooks_tests import (
    TooManyWebhookTestsError,
    WebhookTestUnavailableError,
)
from maas.audit.domain.webhooks import TooManyWebhooksError, WebhookNotFoundError
from maas.audit.interface.watch_dependencies import (
    API,
    Deliveries,
    WebhookIdPath,
    WebhookReads,
    Webhooks,
)
from maas.audit.interface.webhooks_schemas import (
    DeliveryRead,
    TestRead,
    WebhookCreate,
    WebhookRead,
    WebhookSecretRead,
    WebhookUpdate,
)
from maas.audit.public import audited, current_scope
from maas.shared.domain.errors import may_refuse
from maas.shared.domain.principal import Principal
from maas.shared.interface.etags import IfMatch, etag_of
from maas.shared.interface.idempotency import created, idempotent
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

router = APIRouter(prefix="/audit/webhooks", tags=["audit"], route_class=StrictRoute)

VERIFYING = '''
Each alert is sent as `POST` with a JSON body `{"type": "audit.alert", "timestamp", "data"}`, in
order and at least once: `webhook-id` stays the same when a delivery is repeated. Any 2xx within 5 s
takes it. Else it is tried again after 5 s, then ever longer up to 5 min, for 3 days; 410 turns the
webhook off, redirects are not followed. It is signed as
[Standard Webhooks](https://www.standardwebhooks.com) has it, with the secret that the answer shows
this once. To verify, in Python:

```python
import base64, hashlib, hmac, time

def is_genuine(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """`headers` by their names in lower case, `body` as the bytes that came."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    timestamp = headers["webhook-timestamp"]
    if abs(time.time() - int(timestamp)) > 300:
        return False
    signed = f"{headers['webhook-id']}.{timestamp}.".encode() + body
    wanted = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return any(
        hmac.compare_digest(given.encode(), wanted.encode())
        for given in headers["webhook-signature"].split(" ")
    )
```
'''


WRITE = "alert:write"


def _location(webhook: WebhookDetails) -> str:
    return f"{API}/audit/webhooks/{webhook.id}"


def _show(webhook: WebhookDetails, caller: Principal) -> WebhookRead:
    if not caller.may(WRITE):
        webhook = replace(webhook, url=mask(webhook.url))
    return WebhookRead.model_validate(webhook)


def _render(webhook: WebhookDetails, caller: Principal, response: Response) -> WebhookRead:
    response.headers["ETag"] = etag_of(webhook.version)
    return _show(webhook, caller)


@router.get(
    "",
    dependencies=[requires("audit:read")],
    summary="List the tenant's webhooks, newest first",
    description=(
        "Each with how it is doing; the secrets are shown nowhere, and what follows the host in a "
        "URL only to who may change webhooks. Reading them leaves an event."
    ),
)
@audited("audit.read")
async def list_webhooks(
    caller: Caller, webhooks: WebhookReads, paging: Paging
) -> PageRead[WebhookRead]:
    page = await webhooks.list_webhooks(caller.tenant_id, paging)
    return PageRead[WebhookRead].of(page, lambda webhook: _show(webhook, caller))


@router.post(
    "",
    status_code=201,
    dependencies=[requires(WRITE)],
    summary="Have alerts sent to a URL",
    description=(
        "It must be https at a public address; the platform's operator may list others. "
        "What happened before is not sent." + VERIFYING
    ),
)
@audited("audit.webhook_created")
@idempotent(created(WebhookSecretRead, location=_location))
@may_refuse(InvalidWebhookUrlError, TooManyWebhooksError)
async def create_webhook(
    body: WebhookCreate, caller: Caller, webhooks: Webhooks, response: Response
) -> WebhookSecretRead:
    made = await webhooks.create(caller, name=body.name, url=body.url, rules=body.rules)
    response.headers["Location"] = _location(made)
    response.headers["ETag"] = etag_of(made.version)
    return WebhookSecretRead.model_validate(made)


@router.get(
    "/{webhook_id}",
    dependencies=[requires("audit:read")],
    summary="Read a webhook",
    description=(
        "With how it is doing, and without its secret; what follows the host in its URL is shown "
        "only to who may change webhooks. Reading it leaves an event."
    ),
)
@audited("audit.read")
@may_refuse(WebhookNotFoundError)
async def get_webhook(
    webhook_id: WebhookIdPath, caller: Caller, webhooks: WebhookReads, response: Response
) -> WebhookRead:
    webhook = await webhooks.get_webhook(caller.tenant_id, webhook_id)
    current_scope().resource(WEBHOOK, webhook_id)
    return _render(webhook, caller, response)


@router.put(
    "/{webhook_id}",
    dependencies=[requires(WRITE)],
    summary="Change a webhook, turn it off or on again",
    description=(
        "Only what is sent changes, and what waits is tried at once. While it is off, new alerts "
        "are not queued for it; what waits already is kept for 3 days."
    ),
)
@audited("audit.webhook_updated")
@may_refuse(WebhookNotFoundError, InvalidWebhookUrlError)
async def update_webhook(
    webhook_id: WebhookIdPath,
    body: WebhookUpdate,
    caller: Caller,
    webhooks: Webhooks,
    if_match: IfMatch,
    response: Response,
) -> WebhookRead:
    changes = cast("WebhookChanges", {name: getattr(body, name) for name in body.model_fields_set})
    revised = await webhooks.revise(webhook_id, check=if_match.check, **changes)
    return _render(revised, caller, response)


@router.delete(
    "/{webhook_id}",
    status_code=204,
    dependencies=[requires(WRITE)],
    summary="Delete a webhook with its log",
    description="What still waits for it is not sent any more.",
)
@audited("audit.webhook_deleted")
@may_refuse(WebhookNotFoundError)
async def delete_webhook(webhook_id: WebhookIdPath, webhooks: Webhooks, if_match: IfMatch) -> None:
    await webhooks.delete(webhook_id, check=if_match.check)


@router.post(
    "/{webhook_id}/rotate",
    dependencies=[requires(WRITE)],
    summary="Give a webhook a new secret",
    description=(
        "It is shown this once. For a day messages carry two signatures, one with each secret, so "
        "that the receiver can change in its own time."
    ),
)
@audited("audit.webhook_rotated")
@may_refuse(WebhookNotFoundError)
async def rotate_webhook(
    webhook_id: WebhookIdPath, webhooks: Webhooks, if_match: IfMatch, response: Response
) -> WebhookSecretRead:
    made = await webhooks.rotate(webhook_id, check=if_match.check)
    response.headers["ETag"] = etag_of(made.version)
    return WebhookSecretRead.model_validate(made)


@router.post(
    "/{webhook_id}/test",
    dependencies=[requires(WRITE)],
    summary="Send a test to a webhook, now",
    description=(
        "Signed as an alert is, of type `audit.test`, past the queue and also while the webhook is "
        "off. Answers what the receiver said, within about 5 s; it stands in the log as well. One "
        "at a time for a webhook, two for a tenant."
    ),
)
@audited("audit.webhook_tested")
@may_refuse(WebhookNotFoundError, TooManyWebhookTestsError, WebhookTestUnavailableError)
async def send_test(webhook_id: WebhookIdPath, webhooks: Webhooks) -> TestRead:
    return TestRead.model_validate(await webhooks.test(webhook_id))


@router.get(
    "/{webhook_id}/deliveries",
    dependencies=[requires("audit:read")],
    summary="List a webhook's deliveries, newest first",
    description=(
        "What became of each: a status or an error of the last attempt, and when the next is due. "
        "What ended is kept for 30 days. Reading them leaves an event."
    ),
)
@audited("audit.read")
@may_refuse(WebhookNotFoundError)
async def list_deliveries(
    webhook_id: WebhookIdPath,
    caller: Caller,
    deliveries: Deliveries,
    paging: Paging,
    status: DeliveryStatus | None = None,
) -> PageRead[DeliveryRead]:
    page = await deliveries.list_deliveries(caller.tenant_id, webhook_id, paging, status=status)
    current_scope().resource(WEBHOOK, webhook_id)
    return PageRead[DeliveryRead].of(page, DeliveryRead.model_validate)
