"""A receiver of webhooks on loopback, and the watch and the deliveries around it."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from aiohttp import web

from maas.audit.application.events import QueuedEvent
from maas.audit.domain.webhooks import WebhookId
from maas.audit.infrastructure.webhooks_sender import WebhookSecrets
from maas.audit.wiring import deliver_alerts, watch_trail
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.infrastructure.sealing_keys import build_sealer
from maas.shared.infrastructure.settings import OutgoingSettings, Settings
from tests.fakes.clock import FakeClock
from tests.integration.audit.helpers import Superuser, Trail

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ZEROS = bytes(32)


@dataclass
class Receiver:
    """Takes what comes, unless told to answer otherwise; `got` is what it took, in order."""

    port: int = 0
    status: int = 200
    got: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    refused: int = 0
    before: Callable[[], None] = lambda: None
    location: str | None = None
    hold: asyncio.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def alerts(self) -> list[str]:
        return [json.loads(body)["data"]["id"] for _, body in self.got]

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.before()
        if self.hold is not None:
            await self.hold.wait()
        headers = {} if self.location is None else {"Location": self.location}
        if self.status == 200:
            self.got.append(({k.lower(): v for k, v in request.headers.items()}, body))
        else:
            self.refused += 1
        return web.Response(status=self.status, headers=headers, text="canary-of-the-answer")


@asynccontextmanager
async def receiving(receiver: Receiver | None = None) -> AsyncIterator[Receiver]:
    """Listen on loopback; on the port that the receiver had before, if it had one."""
    receiver = receiver or Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", receiver.port)
    await site.start()
    receiver.port = int(runner.addresses[0][1])
    try:
        yield receiver
    finally:
        await runner.cleanup()


@dataclass
class Watching:
    """The log, a clock that stands still, and both tasks as ticks would run them."""

    trail: Trail
    settings: Settings
    superuser: Superuser
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW))
    secret: bytes = bytes(range(32))

    async def log(self, *events: QueuedEvent) -> None:
        await self.trail.add(*events)
        await self.trail.flush().run()

    async def watch(self, **options: Any) -> int:
        return await watch_trail(self.settings, clock=self.clock, **options)

    async def deliver(self, *allowed: Receiver, **options: Any) -> int:
        targets = tuple(f"127.0.0.1:{each.port}" for each in allowed)
        outgoing = OutgoingSettings(allowed_webhook_targets=targets)
        settings = self.settings.model_copy(update={"outgoing": outgoing})
        return await deliver_alerts(settings, clock=self.clock, **options)

    async def hook(self, url: str, *, tenant_id: TenantId = DEFAULT_TENANT_ID) -> WebhookId:
        """Put a webhook there, its secret sealed as the service seals it."""
        webhook_id = WebhookId(new_id())
        secrets = WebhookSecrets(build_sealer(self.settings))
        await self.superuser.execute(
            "INSERT INTO audit_webhooks VALUES"
            " ($1, $2, 'w', $3, '{}', 'active', NULL, $4, NULL, NULL, $5, $5, 1)",
            *(webhook_id, tenant_id, url),
            *(secrets.seal(self.secret, webhook_id, tenant_id), self.clock.now()),
        )
        await self.superuser.execute(
            "INSERT INTO audit_webhook_queues VALUES ($1, $2, 0, $3)",
            *(webhook_id, tenant_id, self.clock.now()),
        )
        return webhook_id

    async def replace(self, webhook_id: UUID, *, until: datetime) -> None:
        """Let a webhook's secret sign as the one before as well."""
        sealed = await self.superuser.fetchval(
            "SELECT secret FROM audit_webhooks WHERE id = $1", webhook_id
        )
        secrets = WebhookSecrets(build_sealer(self.settings))
        await self.superuser.execute(
            "UPDATE audit_webhooks SET previous_until = $2, previous_secret = $3 WHERE id = $1",
            *(webhook_id, until),
            secrets.replace(sealed, WebhookId(webhook_id), DEFAULT_TENANT_ID),
        )

    async def alerts(self) -> list[dict[str, Any]]:
        rows = await self.superuser.fetch("SELECT * FROM audit_alerts ORDER BY raised_at, id")
        return [dict(row) for row in rows]

    async def rules(self) -> list[str]:
        return [alert["rule"] for alert in await self.alerts()]

    async def raised_events(self) -> list[dict[str, Any]]:
        rows = await self.superuser.fetch(
            "SELECT payload, personal::text AS personal FROM audit_outbox ORDER BY created_at"
        )
        assert all(set(json.loads(row["personal"])) <= {"salt", "actor_name"} for row in rows)
        return [json.loads(row["payload"]) for row in rows]

    async def deliveries(self, webhook_id: UUID) -> list[str]:
        rows = await self.superuser.fetch(
            "SELECT status FROM audit_deliveries WHERE webhook_id = $1 ORDER BY position",
            webhook_id,
        )
        return [row["status"] for row in rows]


def is_signed(headers: Mapping[str, str], body: bytes, secret: bytes) -> bool:
    """Check a signature without a line of ours, as a receiver would."""
    signed = b".".join(
        [headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body]
    )
    wanted = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    return f"v1,{wanted}" in headers["webhook-signature"].split(" ")
