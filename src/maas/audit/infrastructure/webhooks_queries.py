"""Reads of webhooks and their deliveries, as `maas_app`; no column with a secret is read."""

from typing import Final

from maas.audit.application.deliveries import DeliveryDetails, DeliveryStatus
from maas.audit.application.webhooks import WebhookDetails
from maas.audit.domain.webhooks import WebhookId, WebhookNotFoundError
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest, cut_page, position_of
from maas.shared.infrastructure.database import Database

_COLUMNS: Final = """
    w.id, w.name, w.url, w.rules, w.status, w.status_reason, w.created_at, w.updated_at, w.version,
    q.failures, CASE WHEN d.pending > 0 THEN q.next_attempt_at END AS next_attempt_at, d.pending
    FROM audit_webhooks w JOIN audit_webhook_queues q ON q.webhook_id = w.id
    CROSS JOIN LATERAL (
        SELECT count(*) AS pending FROM audit_deliveries
        WHERE webhook_id = w.id AND status = 'pending') AS d
"""
_GET: Final = f"SELECT {_COLUMNS} WHERE w.id = $1 AND w.tenant_id = $2"
_LIST: Final = f"""
    SELECT {_COLUMNS} WHERE w.tenant_id = $1
      AND ($2::timestamptz IS NULL OR (w.created_at, w.id) < ($2, $3::uuid))
    ORDER BY w.created_at DESC, w.id DESC LIMIT $4
"""
_COUNT: Final = "SELECT count(*) FROM audit_webhooks WHERE tenant_id = $1"
_HAS: Final = "SELECT 1 FROM audit_webhooks WHERE id = $1 AND tenant_id = $2"

_WANTED: Final = """
    FROM audit_deliveries d
    JOIN audit_webhook_queues q ON q.webhook_id = d.webhook_id
    LEFT JOIN audit_alerts a ON a.id = d.alert_id
    WHERE d.webhook_id = $1 AND d.tenant_id = $2 AND ($3::text IS NULL OR d.status = $3)
"""
_COUNT_LOG: Final = f"SELECT count(*) {_WANTED}"
_LOG: Final = f"""
    SELECT d.id, d.alert_id, a.rule, d.status, d.attempts, d.created_at, d.last_attempt_at,
        d.finished_at, d.last_status, d.last_error,
        CASE WHEN d.status = 'pending' THEN q.next_attempt_at END AS next_attempt_at
    {_WANTED} AND ($4::timestamptz IS NULL OR (d.created_at, d.id) < ($4, $5::uuid))
    ORDER BY d.created_at DESC, d.id DESC LIMIT $6
"""


class PostgresWebhookQueries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_webhooks(self, tenant_id: TenantId, page: PageRequest) -> Page[WebhookDetails]:
        after = (None, None) if page.after is None else (page.after.at, page.after.id)
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(_LIST, tenant_id, *after, page.limit + 1)
            total = await connection.fetchval(_COUNT, tenant_id) if page.include_total else None
        webhooks = [WebhookDetails(**row) for row in rows]
        return cut_page(webhooks, page.limit, total, position_of)

    async def get_webhook(self, tenant_id: TenantId, webhook_id: WebhookId) -> WebhookDetails:
        async with self._database.tenant(tenant_id) as connection:
            row = await connection.fetchrow(_GET, webhook_id, tenant_id)
        if row is None:
            raise WebhookNotFoundError
        return WebhookDetails(**row)

    async def list_deliveries(
        self,
        tenant_id: TenantId,
        webhook_id: WebhookId,
        page: PageRequest,
        *,
        status: DeliveryStatus | None,
    ) -> Page[DeliveryDetails]:
        of_webhook = (webhook_id, tenant_id, status)
        after = (None, None) if page.after is None else (page.after.at, page.after.id)
        async with self._database.tenant(tenant_id) as connection:
            if await connection.fetchval(_HAS, webhook_id, tenant_id) is None:
                raise WebhookNotFoundError
            rows = await connection.fetch(_LOG, *of_webhook, *after, page.limit + 1)
            total = None
            if page.include_total:
                total = await connection.fetchval(_COUNT_LOG, *of_webhook)
        deliveries = [DeliveryDetails(**row) for row in rows]
        return cut_page(deliveries, page.limit, total, position_of)
