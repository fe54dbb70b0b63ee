"""Saying what a tenant lets into its versions."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from maas.audit.public import current_scope
from maas.model.application.ports import ModelUnitOfWork
from maas.model.application.trail import MODEL_SETTINGS
from maas.model.domain.settings import ModelSettings
from maas.shared.domain.clock import Clock
from maas.shared.domain.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettingsService:
    unit_of_work: Callable[[], ModelUnitOfWork]
    clock: Clock

    async def get(self) -> ModelSettings:
        async with self.unit_of_work() as uow:
            return await uow.settings.get()

    async def change(self, principal: Principal, settings: ModelSettings) -> ModelSettings:
        """Set them for the caller's tenant; what is in versions already stays there."""
        async with self.unit_of_work() as uow:
            before = await uow.settings.put(settings, by=principal.account_id, at=self.clock.now())
            current_scope().change(
                MODEL_SETTINGS, principal.tenant_id, before=asdict(before), after=asdict(settings)
            )
            await uow.commit()
        return settings
