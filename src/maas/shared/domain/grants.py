"""Letting another tenant at a thing of one's own: models, suppliers and deployments alike."""

from dataclasses import dataclass
from datetime import datetime

from maas.shared.domain.ids import AccountId, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """`tenant_id` is the other tenant; what it may do with the thing, the thing's own rules say."""

    tenant_id: TenantId
    created_by: AccountId
    created_at: datetime
