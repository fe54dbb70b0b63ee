"""Hands what watches the trail to its routes."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Path, Request

from maas.audit.application.alerts import AlertQueries
from maas.audit.application.deliveries import DeliveryQueries
from maas.audit.application.rules import RuleQueries, RuleService
from maas.audit.application.webhooks import WebhookQueries, WebhookService
from maas.audit.domain.webhooks import WebhookId

API = "/api/v1"


async def _alerts(request: Request) -> AlertQueries:
    return cast("AlertQueries", request.state.audit_alerts)


async def _rule_reads(request: Request) -> RuleQueries:
    return cast("RuleQueries", request.state.audit_alerts)


async def _rules(request: Request) -> RuleService:
    return cast("RuleService", request.state.audit_rules)


async def _webhook_reads(request: Request) -> WebhookQueries:
    return cast("WebhookQueries", request.state.audit_webhook_queries)


async def _deliveries(request: Request) -> DeliveryQueries:
    return cast("DeliveryQueries", request.state.audit_webhook_queries)


async def _webhooks(request: Request) -> WebhookService:
    return cast("WebhookService", request.state.audit_webhooks)


async def _webhook_id(webhook_id: Annotated[UUID, Path()]) -> WebhookId:
    return WebhookId(webhook_id)


Alerts = Annotated[AlertQueries, Depends(_alerts)]
RuleReads = Annotated[RuleQueries, Depends(_rule_reads)]
Rules = Annotated[RuleService, Depends(_rules)]
WebhookReads = Annotated[WebhookQueries, Depends(_webhook_reads)]
Deliveries = Annotated[DeliveryQueries, Depends(_deliveries)]
Webhooks = Annotated[WebhookService, Depends(_webhooks)]
WebhookIdPath = Annotated[WebhookId, Depends(_webhook_id)]
