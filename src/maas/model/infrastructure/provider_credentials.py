"""Suppliers' keys at rest: the `CredentialSeals` port."""

from typing import Final

from maas.model.domain.provider import SupplierKey
from maas.model.public import ProviderId
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.sealing import Sealer
from maas.shared.infrastructure.sealing_upkeep import SealedColumn

SEALED: Final = SealedColumn(table="provider_credentials", column="sealed", row="provider_id")


class SealedCredentials:
    """Seals each key to the row it lies in."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def seal(self, key: SupplierKey, provider_id: ProviderId, tenant_id: TenantId) -> bytes:
        return self._sealer.seal(key.plain.encode(), SEALED.place(provider_id, tenant_id))

    def open(self, sealed: bytes, provider_id: ProviderId, tenant_id: TenantId) -> SupplierKey:
        return SupplierKey(self._sealer.open(sealed, SEALED.place(provider_id, tenant_id)).decode())
