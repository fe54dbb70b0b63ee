"""Keeping the settings of rules, and webhooks, each with its queue."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from maas.audit.application.deliveries import Attempt
from maas.audit.application.rules import LoggedWebhookRepository
from maas.audit.domain.rules import RuleName
from maas.audit.domain.rules_settings import RuleSetting, RuleSettingRepository
from maas.audit.domain.webhooks import (
    Webhook,
    WebhookId,
    WebhookNotFoundError,
)
from maas.audit.infrastructure.watch_tables import audit_rule_settings
from maas.audit.infrastructure.webhooks_tables import (
    audit_deliveries,
    audit_webhook_queues,
    audit_webhooks,
)
from maas.shared.domain.call import current_call
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork

_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


class SqlRuleSettingRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id

    async def find(self, rule: RuleName) -> RuleSetting | None:
        # What is not there yet cannot be locked itself: the second of two who set it first waits.
        await self._session.execute(_LOCK, {"name": f"maas.rule {self._tenant_id} {rule}"})
        columns = audit_rule_settings.c
        setting: RuleSetting | None = await self._session.scalar(
            select(RuleSetting)
            .where(columns.tenant_id == self._tenant_id, columns.rule == rule)
            .with_for_update()
        )
        return setting

    def add(self, setting: RuleSetting) -> None:
        self._session.add(setting)


class SqlWebhookRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id

    async def get(self, webhook_id: WebhookId) -> Webhook:
        columns = audit_webhooks.c
        webhook: Webhook | None = await self._session.scalar(
            select(Webhook)
            .where(columns.id == webhook_id, columns.tenant_id == self._tenant_id)
            .with_for_update()
        )
        if webhook is None:
            raise WebhookNotFoundError
        return webhook

    async def count(self) -> int:
        await self._session.execute(_LOCK, {"name": f"maas.webhooks {self._tenant_id}"})
        found = await self._session.scalar(
            select(func.count())
            .select_from(audit_webhooks)
            .where(audit_webhooks.c.tenant_id == self._tenant_id)
        )
        return found or 0

    async def add(self, webhook: Webhook, *, at: datetime) -> None:
        self._session.add(webhook)
        await self._session.flush()
        await self._session.execute(
            insert(audit_webhook_queues).values(
                webhook_id=webhook.id, tenant_id=webhook.tenant_id, next_attempt_at=at
            )
        )

    async def hurry(self, webhook: Webhook, *, at: datetime) -> None:
        await self._session.execute(
            update(audit_webhook_queues)
            .where(
                audit_webhook_queues.c.webhook_id == webhook.id,
                audit_webhook_queues.c.tenant_id == self._tenant_id,
            )
            .values(failures=0, next_attempt_at=at)
        )

    async def remove(self, webhook: Webhook) -> None:
        columns = audit_webhooks.c
        await self._session.execute(
            delete(audit_webhooks).where(
                columns.id == webhook.id, columns.tenant_id == self._tenant_id
            )
        )

    async def note_test(
        self, webhook: Webhook, delivery_id: UUID, attempt: Attempt, *, at: datetime
    ) -> None:
        await self._session.execute(
            insert(audit_deliveries).values(
                id=delivery_id,
                tenant_id=webhook.tenant_id,
                webhook_id=webhook.id,
                alert_id=None,
                status="delivered" if attempt.is_success else "failed",
                attempts=1,
                created_at=at,
                last_attempt_at=at,
                finished_at=at,
                last_status=attempt.status,
                last_error=attempt.error,
            )
        )


class SqlWatchUnitOfWork(SqlUnitOfWork):
    rules: RuleSettingRepository
    webhooks: LoggedWebhookRepository

    @override
    def _open(self) -> None:
        tenant_id = self._tenant_id or current_call().tenant_id
        self.rules = SqlRuleSettingRepository(self.session, tenant_id)
        self.webhooks = SqlWebhookRepository(self.session, tenant_id)
