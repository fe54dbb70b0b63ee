"""Loading and keeping suppliers, and the transaction they are kept in."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Final

from sqlalchemy import delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from maas.model.domain.provider import (
    MAX_PROVIDER_GRANTS,
    Provider,
    ProviderGrantNotFoundError,
    ProviderName,
    ProviderNameTakenError,
    ProviderNotFoundError,
    ProviderRepository,
    TooManyProviderGrantsError,
)
from maas.model.domain.provider_health import ProviderHealth
from maas.model.domain.provider_model import ProviderModelRepository, ProviderModelTakenError
from maas.model.domain.provider_types import PROVIDER_TYPES
from maas.model.infrastructure.provider_health_tables import provider_health
from maas.model.infrastructure.provider_model_repository import SqlProviderModelRepository
from maas.model.infrastructure.provider_tables import (
    provider_credentials,
    provider_grants,
    providers,
)
from maas.model.public import ProviderId
from maas.shared.domain.call import current_call
from maas.shared.domain.errors import ConflictError
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.infrastructure.constraints import constraint_of
from maas.shared.infrastructure.grants import SqlGrants
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork

_HEALTH: Final = tuple(provider_health.c[each.name] for each in fields(ProviderHealth))


class SqlProviderRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id
        self._grants = SqlGrants(session, provider_grants.c.provider_id, tenant_id)

    async def get(self, provider_id: ProviderId) -> Provider:
        found = await self._session.execute(
            select(Provider)
            .where(
                providers.c.id == provider_id,
                providers.c.tenant_id == self._tenant_id,
                providers.c.deleted_at.is_(None),
                # As in `provider_queries`: a newer release's are not this one's to change.
                providers.c.type.in_(PROVIDER_TYPES),
            )
            .with_for_update(key_share=True)
        )
        provider: Provider | None = found.scalar_one_or_none()
        if provider is None:
            raise ProviderNotFoundError
        # A statement of its own: the one that waits for the lock sees other tables as they were
        # before it waited.
        kept = await self._session.execute(
            select(provider_credentials.c.set_at, *_HEALTH)
            .select_from(providers)
            .outerjoin(provider_credentials)
            .outerjoin(provider_health)
            .where(providers.c.id == provider_id, providers.c.tenant_id == self._tenant_id)
        )
        values = dict(kept.mappings().one())
        provider.credential_set_at = values.pop("set_at")
        if values["status"] is not None:
            provider.health = ProviderHealth(**values)
        return provider

    async def is_name_taken(self, name: ProviderName) -> bool:
        found = await self._session.scalar(
            select(
                exists().where(
                    providers.c.tenant_id == self._tenant_id,
                    providers.c.name == name,
                    providers.c.deleted_at.is_(None),
                )
            )
        )
        return bool(found)

    async def count(self) -> int:
        await self._session.execute(
            select(
                func.pg_advisory_xact_lock(
                    func.hashtextextended(f"maas.providers {self._tenant_id}", 0)
                )
            )
        )
        found = await self._session.scalar(
            select(func.count())
            .select_from(providers)
            .where(providers.c.tenant_id == self._tenant_id, providers.c.deleted_at.is_(None))
        )
        return int(found or 0)

    def add(self, provider: Provider) -> None:
        self._session.add(provider)

    async def put_credential(self, provider: Provider, sealed: bytes, *, by: AccountId) -> None:
        values = {"sealed": sealed, "set_at": provider.credential_set_at, "set_by": by}
        await self._session.execute(
            upsert(provider_credentials)
            .values(provider_id=provider.id, tenant_id=provider.tenant_id, **values)
            .on_conflict_do_update(index_elements=["provider_id"], set_=values)
        )

    async def remove_credential(self, provider: Provider) -> None:
        await self._session.execute(
            delete(provider_credentials).where(
                provider_credentials.c.provider_id == provider.id,
                provider_credentials.c.tenant_id == provider.tenant_id,
            )
        )

    async def grant(self, provider_id: ProviderId, grant: Grant) -> tuple[Grant, bool]:
        return await self._grants.add(
            provider_id, grant, at_most=MAX_PROVIDER_GRANTS, too_many=TooManyProviderGrantsError
        )

    async def revoke(self, provider_id: ProviderId, grantee_id: TenantId) -> None:
        if not await self._grants.remove(provider_id, grantee_id):
            raise ProviderGrantNotFoundError


_TAKEN: Final[Mapping[str, type[ConflictError]]] = {
    "uq_providers_tenant_id_name": ProviderNameTakenError,
    "uq_provider_models_provider_id_name": ProviderModelTakenError,
}


class SqlProviderUnitOfWork(SqlUnitOfWork):
    providers: ProviderRepository
    models: ProviderModelRepository

    @override
    def _open(self) -> None:
        tenant_id = self._tenant_id or current_call().tenant_id
        self.providers = SqlProviderRepository(self.session, tenant_id)
        self.models = SqlProviderModelRepository(self.session, tenant_id)

    @override
    async def commit(self, result: object = None) -> None:
        try:
            await super().commit(result)
        except IntegrityError as exc:
            taken = _TAKEN.get(constraint_of(exc) or "")
            if taken is None:
                raise
            raise taken from exc
