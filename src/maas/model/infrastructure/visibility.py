"""Who reads which model, as conditions of queries; row-level security says the same once more.

A tenant reads its own models, those that are public, and those granted to it; private ones only
their owner does, and who manages models. Versions and files are read by whoever reads the model.
"""

from sqlalchemy import ColumnElement, and_, exists, or_, true

from maas.model.infrastructure.tables import model_grants, models
from maas.model.public import MANAGE_MODELS
from maas.shared.domain.ids import TenantId
from maas.shared.domain.principal import Principal


def readable(*, tenant: str, account: str, manager: str) -> str:
    """Spell the condition on `models m`, in the parameters of a raw query."""
    return f"""(
        m.tenant_id = {tenant}
            AND (m.visibility <> 'private' OR m.owner_id = {account} OR {manager})
        OR m.visibility = 'public'
        OR m.visibility = 'tenant' AND EXISTS (
            SELECT FROM model_grants g WHERE g.model_id = m.id AND g.tenant_id = m.tenant_id
              AND g.grantee_id = {tenant}))"""


def reader(principal: Principal) -> tuple[object, object, object]:
    """Tell the three parameters of `readable`: tenant, account, manager."""
    return principal.tenant_id, principal.account_id, principal.may(MANAGE_MODELS)


def is_seen(principal: Principal | None) -> ColumnElement[bool]:
    """Tell which of a tenant's own models the caller sees; a task, which nobody calls, sees all."""
    if principal is None or principal.may(MANAGE_MODELS):
        return true()
    return or_(models.c.visibility != "private", models.c.owner_id == principal.account_id)


def is_readable(tenant_id: TenantId | None, principal: Principal | None) -> ColumnElement[bool]:
    """Tell which models of any tenant the caller reads."""
    granted = exists().where(
        model_grants.c.model_id == models.c.id,
        model_grants.c.tenant_id == models.c.tenant_id,
        model_grants.c.grantee_id == tenant_id,
    )
    return or_(
        and_(models.c.tenant_id == tenant_id, is_seen(principal)),
        models.c.visibility == "public",
        and_(models.c.visibility == "tenant", granted),
    )
