"""Suppliers' keys at rest: the `CredentialSeals` port."""

from typing import Final

from maas.model.domain.provider import SupplierKey
from maas.model.public import ProviderId
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.sealing import Place, Sealer

SEALED_TABLE: Final = "provider_credentials"
SEALED_COLUMN: Final = "sealed"


class SealedCredentials:
    """Seals each key to the row it lies in."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def seal(self, key: SupplierKey, provider_id: ProviderId, tenant_id: TenantId) -> bytes:
        return self._sealer.seal(key.plain.encode(), _place(provider_id, tenant_id))

    def open(self, sealed: bytes, provider_id: ProviderId, tenant_id: TenantId) -> SupplierKey:
        return SupplierKey(self._sealer.open(sealed, _place(provider_id, tenant_id)).decode())


def _place(provider_id: ProviderId, tenant_id: TenantId) -> Place:
    return Place(table=SEALED_TABLE, row=provider_id, column=SEALED_COLUMN, tenant=tenant_id)
