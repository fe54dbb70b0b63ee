"""Registering models, keeping what is said about them, and sharing them with other tenants."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from typing_extensions import Unpack

from maas.audit.public import ChangeValue, current_scope
from maas.model.application.ports import CheckRevision, ModelUnitOfWork
from maas.model.application.queries import ModelDetails
from maas.model.application.trail import MODEL, spell
from maas.model.domain.metadata import Metadata
from maas.model.domain.model import (
    GrantToSelfError,
    Model,
    ModelChanges,
    ModelNameTakenError,
    OwnerNotMemberError,
)
from maas.model.domain.text import Description, Label, ModelCard, ModelName, Tag
from maas.model.public import MANAGE_MODELS, Framework, ModelId, Visibility
from maas.shared.domain.clock import Clock
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import TenantId, new_id
from maas.shared.domain.principal import Principal
from maas.user.public import Members

_DECIDED_BY_OWNER = frozenset({"visibility", "owner_id"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewModel:
    name: ModelName
    framework: Framework
    description: Description | None
    task: Label | None
    licence: Label | None
    card: ModelCard | None = None
    visibility: Visibility = "tenant"
    tags: Sequence[Tag] = ()
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelService:
    unit_of_work: Callable[[], ModelUnitOfWork]
    members: Members
    clock: Clock

    async def register(self, principal: Principal, new: NewModel) -> ModelDetails:
        """Make a model in the caller's tenant, owned by the caller.

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
            card=new.card,
            visibility=new.visibility,
            owner_id=principal.account_id,
            created_by=principal.account_id,
            created_at=now,
            updated_at=now,
            tags=set(new.tags),
            metadata={} if new.metadata is None else dict(new.metadata.entries),
        )
        # Whether the name is taken, the commit tells: looking before would be one more round trip.
        async with self.unit_of_work() as uow:
            uow.models.add(model)
            details = ModelDetails.of(model)
            current_scope().change(MODEL, model.id, after=_trail(model))
            await uow.commit(details)
        return details

    async def revise(
        self,
        principal: Principal,
        model_id: ModelId,
        *,
        check: CheckRevision,
        **changes: Unpack[ModelChanges],
    ) -> ModelDetails:
        """Set what is given, leave the rest.

        What changes nothing is in the trail all the same: one event, without changes.

        Raises:
            ModelNotFoundError, ModelNameTakenError.
            NotModelOwnerError: the owner or visibility is not for the caller to set.
            OwnerNotMemberError: who is to own it is not of the tenant, or may not act.
        """
        async with self.unit_of_work() as uow:
            model = await uow.models.get(model_id)
            current_scope().resource(MODEL, model.id)
            check(model.revision)
            before = _trail(model)
            if not _DECIDED_BY_OWNER.isdisjoint(changes):
                _check_decider(principal, model)
            owner_id = changes.get("owner_id", model.owner_id)
            # An owner who has left stays until another is named: all else can be changed.
            if owner_id != model.owner_id and not await self.members.is_active(
                model.tenant_id, owner_id
            ):
                raise OwnerNotMemberError
            name = changes.get("name", model.name)
            if name != model.name and await uow.models.is_name_taken(name):
                raise ModelNameTakenError
            model.revise(at=self.clock.now(), **changes)
            current_scope().change(MODEL, model.id, before=before, after=_trail(model))
            await uow.commit()
        return ModelDetails.of(model)

    async def tag(self, model_id: ModelId, tag: Tag, *, check: CheckRevision) -> None:
        """Have the tag on the model; a second time changes nothing.

        Raises:
            ModelNotFoundError, TooManyTagsError.
        """
        async with self.unit_of_work() as uow:
            model = await uow.models.get(model_id)
            current_scope().resource(MODEL, model.id)
            check(model.revision)
            before = _trail(model)
            model.tag(tag, at=self.clock.now())
            current_scope().change(MODEL, model.id, before=before, after=_trail(model))
            await uow.commit()

    async def untag(self, model_id: ModelId, tag: Tag, *, check: CheckRevision) -> None:
        """Have the tag off the model.

        Raises:
            ModelNotFoundError, ModelTagNotFoundError.
        """
        async with self.unit_of_work() as uow:
            model = await uow.models.get(model_id)
            current_scope().resource(MODEL, model.id)
            check(model.revision)
            before = _trail(model)
            model.untag(tag, at=self.clock.now())
            current_scope().change(MODEL, model.id, before=before, after=_trail(model))
            await uow.commit()

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

    async def restore(self, model_id: ModelId, *, check: CheckRevision) -> ModelDetails:
        """Bring a deleted model back as it was; one that is not deleted is left alone.

        Raises:
            ModelNotFoundError.
            ModelNameTakenError: another model has got its name meanwhile.
        """
        async with self.unit_of_work() as uow:
            model = await uow.models.get(model_id, deleted=True)
            current_scope().resource(MODEL, model.id)
            check(model.revision)
            if model.deleted_at is not None:
                if await uow.models.is_name_taken(model.name):
                    raise ModelNameTakenError
                model.restore(at=self.clock.now())
                current_scope().change(MODEL, model.id, after=_trail(model))
            await uow.commit()
        return ModelDetails.of(model)

    async def grant(
        self, principal: Principal, model_id: ModelId, grantee_id: TenantId
    ) -> tuple[Grant, bool]:
        """Let another tenant read the model, and tell whether that is new.

        Raises:
            ModelNotFoundError, NotModelOwnerError, GrantToSelfError, TooManyGrantsError.
        """
        async with self.unit_of_work() as uow:
            model = await uow.models.get(model_id)
            current_scope().resource(MODEL, model.id)
            _check_decider(principal, model)
            if grantee_id == model.tenant_id:
                raise GrantToSelfError
            grant = Grant(
                tenant_id=grantee_id,
                created_by=principal.account_id,
                created_at=self.clock.now(),
            )
            kept, is_new = await uow.models.grant(model.id, grant)
            current_scope().change(MODEL, model.id, after={"granted_to": str(grantee_id)})
            await uow.commit()
        return kept, is_new

    async def revoke(self, principal: Principal, model_id: ModelId, grantee_id: TenantId) -> None:
        """Let another tenant read the model no longer.

        Raises:
            ModelNotFoundError, NotModelOwnerError, ModelGrantNotFoundError.
        """
        async with self.unit_of_work() as uow:
            model = await uow.models.get(model_id)
            current_scope().resource(MODEL, model.id)
            _check_decider(principal, model)
            await uow.models.revoke(model.id, grantee_id)
            current_scope().change(MODEL, model.id, before={"granted_to": str(grantee_id)})
            await uow.commit()


def _check_decider(principal: Principal, model: Model) -> None:
    model.check_decider(principal.account_id, is_manager=principal.may(MANAGE_MODELS))


def _trail(model: Model) -> dict[str, ChangeValue]:
    return {
        "name": str(model.name),
        "framework": model.framework,
        "task": None if model.task is None else str(model.task),
        "licence": None if model.licence is None else str(model.licence),
        "description": None if model.description is None else str(model.description),
        "card": None if model.card is None else str(model.card),
        "visibility": model.visibility,
        "owner_id": str(model.owner_id),
        "tags": sorted(map(str, model.tags)),
        "metadata": spell(model.metadata),
    }
