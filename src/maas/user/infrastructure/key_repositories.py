"""Loading and keeping API keys and service accounts."""

from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from typing_extensions import override

from maas.shared.application.ports import InvalidApiKeyError, InvalidTokenError
from maas.shared.domain.ids import ApiKeyId, ServiceAccountId, TenantId
from maas.shared.domain.principal import Principal
from maas.user.application.admin_ports import SessionEffects
from maas.user.application.key_ports import Caller
from maas.user.domain.api_key import ApiKey, ApiKeyNotFoundError, Holder
from maas.user.domain.service_account import ServiceAccount, ServiceAccountNotFoundError
from maas.user.infrastructure.admin_repositories import SqlAdminUnitOfWork, share_tenant
from maas.user.infrastructure.key_marks import refresh_keys
from maas.user.infrastructure.key_tables import api_keys, service_accounts
from maas.user.infrastructure.quota_tables import quotas
from maas.user.infrastructure.tables import sessions, tenants


class SqlApiKeyRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id

    async def get_held(self, key_id: ApiKeyId, holder: Holder) -> ApiKey:
        statement = select(ApiKey).where(api_keys.c.id == key_id, *self._held_by(holder))
        key: ApiKey | None = await self._session.scalar(statement.with_for_update())
        if key is None:
            raise ApiKeyNotFoundError
        return key

    async def count_held(self, holder: Holder) -> int:
        statement = select(func.count()).select_from(api_keys).where(*self._held_by(holder))
        return await self._session.scalar(statement) or 0

    def add(self, key: ApiKey) -> None:
        self._session.add(key)

    async def remove(self, key: ApiKey) -> None:
        # Nothing refers to a key from there, and nobody could take them away once it is gone.
        await self._session.execute(
            delete(quotas).where(
                quotas.c.tenant_id == key.tenant_id,
                quotas.c.scope == "key",
                quotas.c.subject_id == key.id,
            )
        )
        await self._session.delete(key)

    def _held_by(self, holder: Holder) -> tuple[ColumnElement[Any], ...]:
        if holder.service_account_id is None:
            held: ColumnElement[Any] = api_keys.c.account_id == holder.account_id
        else:
            held = api_keys.c.service_account_id == holder.service_account_id
        return api_keys.c.tenant_id == self._tenant_id, held


class SqlServiceAccountRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id

    async def get(self, service_account_id: ServiceAccountId) -> ServiceAccount:
        await share_tenant(self._session, self._tenant_id)
        statement = (
            select(ServiceAccount)
            .where(
                service_accounts.c.tenant_id == self._tenant_id,
                service_accounts.c.id == service_account_id,
            )
            .options(selectinload(ServiceAccount.grants))  # type: ignore[arg-type, misc]  # mapped imperatively
            .with_for_update()
        )
        account: ServiceAccount | None = await self._session.scalar(statement)
        if account is None:
            raise ServiceAccountNotFoundError
        return account

    async def count_locked(self) -> int:
        tenant = select(tenants.c.id).where(tenants.c.id == self._tenant_id)
        # Sign-ins and whoever gives roles share the row, and need not wait for this.
        await self._session.execute(tenant.with_for_update(key_share=True))
        counted = select(func.count()).where(service_accounts.c.tenant_id == self._tenant_id)
        return await self._session.scalar(counted) or 0

    def add(self, service_account: ServiceAccount) -> None:
        self._session.add(service_account)

    async def remove(self, service_account: ServiceAccount) -> None:
        await self._session.delete(service_account)


class SqlKeyUnitOfWork(SqlAdminUnitOfWork):
    keys: SqlApiKeyRepository
    service_accounts: SqlServiceAccountRepository

    @override
    def _open(self) -> None:
        super()._open()
        self.keys = SqlApiKeyRepository(self.session, self._acting_in)
        self.service_accounts = SqlServiceAccountRepository(self.session, self._acting_in)

    async def lock_holder(self, holder: Holder) -> ServiceAccount | None:
        await share_tenant(self.session, self._acting_in)
        if holder.service_account_id is not None:
            return await self.service_accounts.get(holder.service_account_id)
        if holder.account_id is not None:
            await self.accounts.get(holder.account_id)
        return None

    async def find_caller(self, principal: Principal) -> Caller:
        if principal.api_key_id is not None:
            own = (quotas.c.scope == "key", quotas.c.subject_id == principal.api_key_id)
            key = select(
                api_keys.c.expires_at,
                api_keys.c.auth_version,
                exists().where(quotas.c.tenant_id == self._acting_in, *own).label("has_quotas"),
            ).where(api_keys.c.id == principal.api_key_id)
            found = (await self.session.execute(key)).one_or_none()
            # Of another version, it may have another secret or reach less far by now.
            if found is None or found.auth_version != principal.version:
                raise InvalidApiKeyError
            return Caller(ends_by=found.expires_at, has_quotas=found.has_quotas)
        if principal.session_id is not None:
            live = (sessions.c.id == principal.session_id, sessions.c.revoked_at.is_(None))
            if await self.session.scalar(select(sessions.c.id).where(*live)) is None:
                raise InvalidTokenError
        return Caller()

    async def refresh_keys(self, service_account_id: ServiceAccountId) -> SessionEffects:
        marks = await refresh_keys(
            self.session,
            api_keys.c.tenant_id == self._acting_in,
            api_keys.c.service_account_id == service_account_id,
        )
        return SessionEffects(stale_keys=marks)
