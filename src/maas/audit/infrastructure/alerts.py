"""Reads of alerts and rules, as `maas_app`, under row-level security and the filter by tenant."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from maas.audit.application.alerts import AlertDetails, AlertFilter
from maas.audit.application.rules import RuleDetails, defaults
from maas.audit.domain.rules import rule_type
from maas.audit.domain.rules_settings import RuleSetting
from maas.audit.infrastructure.deliveries import alert_of
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest, Position, cut_page
from maas.shared.infrastructure.database import Database

_WANTED: Final = """
    FROM audit_alerts WHERE tenant_id = $1 AND ($2::text IS NULL OR rule = $2)
      AND ($3::timestamptz IS NULL OR raised_at >= $3)
      AND ($4::timestamptz IS NULL OR raised_at < $4)
"""
_COUNT: Final = f"SELECT count(*) {_WANTED}"
_LIST: Final = f"""
    SELECT * {_WANTED} AND ($5::timestamptz IS NULL OR (raised_at, id) < ($5, $6::uuid))
    ORDER BY raised_at DESC, id DESC LIMIT $7
"""
_SETTINGS: Final = """
    SELECT tenant_id, rule, is_enabled, parameters::text AS parameters, updated_at, version
    FROM audit_rule_settings WHERE tenant_id = $1
"""
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


class PostgresAlertQueries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_alerts(
        self, tenant_id: TenantId, wanted: AlertFilter, page: PageRequest
    ) -> Page[AlertDetails]:
        arguments = (tenant_id, wanted.rule, wanted.since, wanted.until)
        after = (None, None) if page.after is None else (page.after.at, page.after.id)
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(_LIST, *arguments, *after, page.limit + 1)
            total = await connection.fetchval(_COUNT, *arguments) if page.include_total else None
        alerts = [alert_of(row) for row in rows]
        return cut_page(
            alerts, page.limit, total, lambda last: Position(at=last.raised_at, id=last.id)
        )

    async def list_rules(self, tenant_id: TenantId) -> Sequence[RuleDetails]:
        settings = defaults(tenant_id, at=_NEVER)
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(_SETTINGS, tenant_id)
        for row in rows:
            if row["rule"] in settings:
                settings[row["rule"]] = _setting(row)
        return [RuleDetails.of(settings[name]) for name in sorted(settings)]

    async def get_rule(self, tenant_id: TenantId, name: str) -> RuleDetails:
        wanted = rule_type(name).name
        rules = await self.list_rules(tenant_id)
        return next(rule for rule in rules if rule.name == wanted)


def _setting(row: Any) -> RuleSetting:
    return RuleSetting(**{**row, "parameters": json.loads(row["parameters"])})
