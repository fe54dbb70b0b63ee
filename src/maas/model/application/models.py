"""Registering models and keeping what is said about them."""

from collections.abc import Callable
from dataclasses import dataclass

from typing_extensions import Unpack

from maas.audit.public import ChangeValue, current_scope
from maas.model.application.ports import CheckRevision, ModelUnitOfWork
from maas.model.application.queries import ModelDetails
from maas.model.application.trail import MODEL
from maas.model.domain.model import Model, ModelChanges, ModelNameTakenError
from maas.model.domain.text import Description, Label, ModelName
from maas.model.public import Framework, ModelId
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import new_id
from maas.shared.domain.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class NewModel:
    name: ModelName
    framework: Framework
    description: Description | None
    task: Label | None
    licence: Label | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelService:
    unit_of_work: Callable[[], ModelUnitOfWork]
    clock: Clock

    async def register(self, principal: Principal, new: NewModel) -> ModelDetails:
        """Make a model in the caller's tenant.

        Raises:
            ModelNameTakenError: the tenant has a model of this name.
        """
        now = self.clock.now()
        model = Model(
            id=ModelId(new_id()),
            tenant_id=principal.tenant_id,
            name=new.name,
            description=new.description,
            framework=new.framework,
            task=new.task,
            licence=new.licence,
            created_by=principal.account_id,
            created_at=now,
            updated_at=now,
        )
        async with self.unit_of_work() as uow:
            if await uow.models.is_name_taken(model.name):
                raise ModelNameTakenError
            uow.models.add(model)
            details = ModelDetails.of(model)
            current_scope().change(MODEL, model.id, after=_trail(model))
            await uow.commit(details)
        return details

    async def revise(
        self, model_id: ModelId, *, check: CheckRevision, **changes: Unpack[ModelChanges]
    ) -> ModelDetails:
        """Set what is given, leave the rest.

        What changes nothing is in the trail all the same: one event, without changes.

        Raises:
            ModelNotFoundError, ModelNameTakenError.
        """
        async with self.unit_of_work() as uow:
            model = await uow.models.get(model_id)
            current_scope().resource(MODEL, model.id)
            check(model.revision)
            before = _trail(model)
            name = changes.get("name", model.name)
            if name != model.name and await uow.models.is_name_taken(name):
                raise ModelNameTakenError
            model.revise(at=self.clock.now(), **changes)
            current_scope().change(MODEL, model.id, before=before, after=_trail(model))
            await uow.commit()
        return ModelDetails.of(model)

    async def delete(self, model_id: ModelId, *, check: CheckRevision) -> None:
        """Take a model out of sight and free its name; its versions are kept.

        Raises:
            ModelNotFoundError.
        """
        async with self.unit_of_work() as uow:
            model = await uow.models.get(model_id)
            current_scope().resource(MODEL, model.id)
            check(model.revision)
            model.delete(at=self.clock.now())
            current_scope().change(MODEL, model.id, before=_trail(model))
            await uow.commit()


def _trail(model: Model) -> dict[str, ChangeValue]:
    return {
        "name": str(model.name),
        "framework": model.framework,
        "task": None if model.task is None else str(model.task),
        "licence": None if model.licence is None else str(model.licence),
        "description": None if model.description is None else str(model.description),
    }
