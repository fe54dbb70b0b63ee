"""A model: what it is called, what it is for and who may see it; its bytes are in its versions."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypedDict

from typing_extensions import Unpack

from maas.model.domain.metadata import Metadata, MetadataValue, are_same
from maas.model.domain.text import Description, Label, ModelCard, ModelName, Tag
from maas.model.public import Framework, ModelId, Visibility
from maas.shared.domain.errors import (
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    RuleViolatedError,
)
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import AccountId, TenantId

MAX_TAGS = 50
MAX_GRANTS = 1_000


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


class NotModelOwnerError(PermissionDeniedError):
    code = "not-model-owner"
    title = "Only the model's owner decides who sees it"

    def __init__(self) -> None:
        super().__init__(
            "A model's owner, visibility and grants are changed by its owner, or by whoever holds "
            "`model:manage`."
        )


class OwnerNotMemberError(RuleViolatedError):
    code = "owner-not-member"
    title = "Whom the model is handed to is not of the tenant"

    def __init__(self) -> None:
        super().__init__(
            "A model is owned by an active member or service account of its tenant: name one."
        )


class ModelTagNotFoundError(NotFoundError):
    code = "model-tag-not-found"
    title = "The model has no such tag"


class ModelGrantNotFoundError(NotFoundError):
    code = "model-grant-not-found"
    title = "The model is not granted to this tenant"


class TooManyTagsError(RuleViolatedError):
    code = "too-many-tags"
    title = "The model has all the tags it can have"

    def __init__(self) -> None:
        super().__init__(f"A model has at most {MAX_TAGS} tags.")


class TooManyGrantsError(RuleViolatedError):
    code = "too-many-grants"
    title = "The model is granted to as many tenants as it can be"

    def __init__(self) -> None:
        super().__init__(f"A model is granted to at most {MAX_GRANTS} tenants; make it public.")


class GrantToSelfError(RuleViolatedError):
    code = "grant-to-self"
    title = "The model is this tenant's already"


class ModelChanges(TypedDict, total=False):
    """What may be revised; what is absent stays."""

    name: ModelName
    description: Description | None
    framework: Framework
    task: Label | None
    licence: Label | None
    card: ModelCard | None
    visibility: Visibility
    owner_id: AccountId
    metadata: Metadata


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
    card: ModelCard | None = None
    visibility: Visibility = "tenant"
    owner_id: AccountId
    created_by: AccountId
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    revision: int = 1
    tags: set[Tag] = field(default_factory=set)
    metadata: dict[str, MetadataValue] = field(default_factory=dict)

    def check_decider(self, account_id: AccountId, *, is_manager: bool) -> None:
        """Refuse unless the account decides who sees the model.

        Raises:
            NotModelOwnerError: it neither owns the model nor manages all of them.
        """
        if not is_manager and account_id != self.owner_id:
            raise NotModelOwnerError

    def revise(self, *, at: datetime, **changes: Unpack[ModelChanges]) -> None:
        """Set what is given, leave the rest; metadata is replaced as a whole.

        What changes nothing leaves the revision as it is.
        """
        metadata = changes.pop("metadata", None)
        changed = {name: to for name, to in changes.items() if to != getattr(self, name)}
        for name, to in changed.items():
            setattr(self, name, to)
        if metadata is not None and not are_same(metadata.entries, self.metadata):
            self.metadata = dict(metadata.entries)
            changed["metadata"] = metadata
        if changed:
            self._touch(at)

    def tag(self, tag: Tag, *, at: datetime) -> None:
        """Have the tag; one it has already changes nothing.

        Raises:
            TooManyTagsError.
        """
        if tag in self.tags:
            return
        if len(self.tags) >= MAX_TAGS:
            raise TooManyTagsError
        self.tags.add(tag)
        self._touch(at)

    def untag(self, tag: Tag, *, at: datetime) -> None:
        """Have the tag no longer.

        Raises:
            ModelTagNotFoundError.
        """
        if tag not in self.tags:
            raise ModelTagNotFoundError
        self.tags.remove(tag)
        self._touch(at)

    def delete(self, *, at: datetime) -> None:
        """Take it out of sight; its name is free again, its versions are kept."""
        self.deleted_at = at
        self._touch(at)

    def restore(self, *, at: datetime) -> None:
        """Bring it back into sight as it was; one that is in sight is left alone."""
        if self.deleted_at is not None:
            self.deleted_at = None
            self._touch(at)

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.revision += 1


class ModelRepository(Protocol):
    """Finds the tenant's own models, and of private ones those that the caller may see."""

    async def get(self, model_id: ModelId, *, deleted: bool = False) -> Model:
        """Load the model, locked, so that what was checked stays so until the commit.

        Deleted ones as well, if asked.

        Raises:
            ModelNotFoundError: not there, deleted, hidden from the caller, or another tenant's.
        """
        ...

    async def is_name_taken(self, name: ModelName) -> bool: ...

    def add(self, model: Model) -> None: ...

    async def grant(self, model_id: ModelId, grant: Grant) -> tuple[Grant, bool]:
        """Have the grant, or the one the tenant had before; and tell whether it is new.

        Raises:
            TooManyGrantsError.
        """
        ...

    async def revoke(self, model_id: ModelId, grantee_id: TenantId) -> None:
        """Have the grant no longer.

        Raises:
            ModelGrantNotFoundError.
        """
        ...
