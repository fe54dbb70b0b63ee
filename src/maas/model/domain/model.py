"""A model: what it is called and what it is for; its bytes are in its versions."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypedDict

from typing_extensions import Unpack

from maas.model.domain.text import Description, Label, ModelName
from maas.model.public import Framework, ModelId
from maas.shared.domain.errors import ConflictError, NotFoundError
from maas.shared.domain.ids import AccountId, TenantId


class ModelNotFoundError(NotFoundError):
    code = "model-not-found"
    title = "No such model"


class ModelNameTakenError(ConflictError):
    code = "model-name-taken"
    title = "Model name already in use"

    def __init__(self) -> None:
        super().__init__(
            "Another model of this tenant has this name: choose another, or delete that one."
        )


class ModelChanges(TypedDict, total=False):
    """What may be revised; what is absent stays."""

    name: ModelName
    description: Description | None
    framework: Framework
    task: Label | None
    licence: Label | None


@dataclass(eq=False, kw_only=True)
class Model:
    """A named model of one tenant. `revision` counts the changes, for ETags."""

    id: ModelId
    tenant_id: TenantId
    name: ModelName
    description: Description | None
    framework: Framework
    task: Label | None
    licence: Label | None
    created_by: AccountId
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    revision: int = 1

    def revise(self, *, at: datetime, **changes: Unpack[ModelChanges]) -> None:
        """Set what is given, leave the rest.

        What changes nothing leaves the revision as it is.
        """
        changed = {name: to for name, to in changes.items() if to != getattr(self, name)}
        for name, to in changed.items():
            setattr(self, name, to)
        if changed:
            self._touch(at)

    def delete(self, *, at: datetime) -> None:
        """Take it out of sight; its name is free again, its versions are kept."""
        self.deleted_at = at
        self._touch(at)

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.revision += 1


class ModelRepository(Protocol):
    async def get(self, model_id: ModelId) -> Model:
        """Load the model, locked, so that what was checked stays so until the commit.

        Raises:
            ModelNotFoundError: not there, deleted, or another tenant's.
        """
        ...

    async def is_name_taken(self, name: ModelName) -> bool: ...

    def add(self, model: Model) -> None: ...
