"""A deployment: the name that calls go by, the targets behind it, and who may call it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal, Protocol, TypeAlias, TypedDict

from typing_extensions import Unpack, override

from maas.inference.domain.route import TargetLimits
from maas.inference.public import DeploymentId, TargetId
from maas.model.public import ProviderModelId, VersionReference
from maas.shared.domain.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    RuleViolatedError,
)
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.domain.pricing import Prices
from maas.shared.domain.text import compose, has_invisible

MAX_DEPLOYMENTS: Final = 1_000
"""Of one tenant, deleted ones not counted."""

MAX_TARGETS: Final = 32
MAX_DEPLOYMENT_GRANTS: Final = 1_000
MAX_NAME_CHARS: Final = 200
MAX_DESCRIPTION_CHARS: Final = 4_000

_SEGMENT = r"\w(?:[\w.+-]*\w)?"
_NAME = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*(?::{_SEGMENT})?")

DeploymentStatus: TypeAlias = Literal["active", "disabled"]
DeploymentVisibility: TypeAlias = Literal["tenant", "public"]
"""Who may call it: its tenant and those it is granted to, or every tenant."""

TargetStatus: TypeAlias = Literal["active", "disabled"]


class DeploymentNotFoundError(NotFoundError):
    code = "deployment-not-found"
    title = "No such deployment"


class DeploymentNameTakenError(ConflictError):
    code = "deployment-name-taken"
    title = "Deployment name already in use"

    def __init__(self) -> None:
        super().__init__("Another deployment of this tenant has this name: choose another.")


class TooManyDeploymentsError(RuleViolatedError):
    code = "too-many-deployments"
    title = "The tenant has as many deployments as it may"

    def __init__(self) -> None:
        super().__init__(f"A tenant has at most {MAX_DEPLOYMENTS} deployments: delete one first.")


class InvalidDeploymentNameError(InvalidInputError):
    code = "invalid-deployment-name"
    title = "Not a name of a deployment"

    def __init__(self) -> None:
        super().__init__(
            f"A deployment's name has 1 to {MAX_NAME_CHARS} characters and looks like `name`, "
            "`org/name` or `org/name:tag`. Each part holds letters and digits of any script, "
            "underscores, and, between them, dots, dashes or plus signs."
        )


class InvalidDeploymentTextError(InvalidInputError):
    code = "invalid-deployment-text"
    title = "Not a text that can be kept"

    def __init__(self) -> None:
        super().__init__(
            f"The text has 1 to {MAX_DESCRIPTION_CHARS} characters, and none that cannot be seen "
            "but line breaks and tabs."
        )


class TargetMissingError(InvalidInputError):
    """What a new target leads to is not there, or not for the deployment's tenant."""

    code = "target-missing"
    title = "There is no such thing to call"

    def __init__(self, index: int) -> None:
        super().__init__(
            "The tenant can call no such provider's model, or the caller sees no such version or "
            "alias of a model.",
            loc=("body", "targets", index),
        )


class TargetTwiceError(InvalidInputError):
    code = "target-twice"
    title = "The deployment has this target already"

    def __init__(self, index: int) -> None:
        super().__init__(
            "Two targets lead to the same: give one of them the weight of both.",
            loc=("body", "targets", index),
        )


class DeploymentOfOperatorError(PermissionDeniedError):
    code = "deployment-of-operator"
    title = "Only the platform's operator offers deployments to other tenants"

    def __init__(self) -> None:
        super().__init__(
            "The name would stand in other tenants' lists unasked: whoever holds "
            "`platform:deployments` grants a deployment, makes it public, and renames one that is."
        )


class DeploymentGrantNotFoundError(NotFoundError):
    code = "deployment-grant-not-found"
    title = "The deployment is not granted to this tenant"


class TooManyDeploymentGrantsError(RuleViolatedError):
    code = "too-many-deployment-grants"
    title = "The deployment is granted to as many tenants as it can be"

    def __init__(self) -> None:
        super().__init__(f"A deployment is granted to at most {MAX_DEPLOYMENT_GRANTS} tenants.")


class DeploymentGrantToSelfError(RuleViolatedError):
    code = "deployment-grant-to-self"
    title = "The deployment is this tenant's already"


@dataclass(frozen=True, slots=True)
class DeploymentName:
    """What callers send as `model`, as in `org/name:tag`; unique in its tenant, and case matters.

    It is kept in Unicode's composed form (NFC), so that one look has one spelling.
    """

    value: str

    def __post_init__(self) -> None:
        if has_invisible(self.value):
            raise InvalidDeploymentNameError
        text = compose(self.value, max_chars=MAX_NAME_CHARS)
        if not 1 <= len(text) <= MAX_NAME_CHARS or not _NAME.fullmatch(text):
            raise InvalidDeploymentNameError
        object.__setattr__(self, "value", text)

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class DeploymentText:
    """What a deployment is for, in several lines."""

    value: str

    def __post_init__(self) -> None:
        text = self.value.strip()
        seen = text.translate({ord(char): None for char in "\r\n\t\u200c\u200d"})
        if not 1 <= len(text) <= MAX_DESCRIPTION_CHARS or has_invisible(seen):
            raise InvalidDeploymentTextError
        object.__setattr__(self, "value", text)

    @override
    def __str__(self) -> str:
        return self.value


TargetThing: TypeAlias = ProviderModelId | VersionReference
"""What a target leads to: a supplier's model, or a version of the registry, fixed or by alias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One way to an answer. Lower priorities (0 to 100) are asked first, weights share (1 to 1000).

    `price` is of a local target alone; what a supplier's model costs stands with that model.
    """

    id: TargetId
    to: TargetThing
    priority: int = 0
    weight: int = 1
    status: TargetStatus = "active"
    limits: TargetLimits = field(default_factory=TargetLimits)
    price: Prices | None = None


class DeploymentChanges(TypedDict, total=False):
    """What may be revised; what is absent stays."""

    name: DeploymentName
    description: DeploymentText | None
    status: DeploymentStatus
    visibility: DeploymentVisibility
    currency: str | None
    max_body_bytes: int | None
    max_output_tokens: int | None
    max_choices: int | None
    cache_seconds: int | None
    capture_days: int | None
    targets: Sequence[Target]


@dataclass(eq=False, kw_only=True)
class Deployment:
    """A name and what answers to it. `revision` counts the changes, those of targets too.

    Where `currency` is `None`, the prices of the first target that has any decide in which one
    calls are charged. `is_granted` tells whether any other tenant has a grant.
    """

    id: DeploymentId
    tenant_id: TenantId
    name: DeploymentName
    description: DeploymentText | None = None
    status: DeploymentStatus = "active"
    visibility: DeploymentVisibility = "tenant"
    currency: str | None = None
    max_body_bytes: int | None = None
    max_output_tokens: int | None = None
    max_choices: int | None = None
    cache_seconds: int | None = None
    capture_days: int | None = None
    created_by: AccountId
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    revision: int = 1
    targets: Sequence[Target] = ()
    is_granted: bool = False

    def __post_init__(self) -> None:
        _check_each_once(self.targets)

    def check_offer(self, *, is_operator: bool) -> None:
        """Refuse to offer it to every tenant unless the caller may.

        Raises:
            DeploymentOfOperatorError: it is public.
        """
        if self.visibility == "public" and not is_operator:
            raise DeploymentOfOperatorError

    def revise(
        self, *, at: datetime, is_operator: bool, **changes: Unpack[DeploymentChanges]
    ) -> None:
        """Set what is given, leave the rest; what changes nothing leaves the revision as it is.

        A target that leads where one did before keeps its id, and with it what is known of it.

        Raises:
            DeploymentOfOperatorError: another name, or another visibility, would offer it to other
                tenants.
            TargetTwiceError.
        """
        if "targets" in changes:
            known = {target.to: target.id for target in self.targets}
            changes["targets"] = tuple(
                replace(target, id=known.get(target.to, target.id)) for target in changes["targets"]
            )
            _check_each_once(changes["targets"])
        changed = {name: to for name, to in changes.items() if getattr(self, name) != to}
        if not changed:
            return
        self._check_names(changed, is_operator=is_operator)
        for name, to in changed.items():
            setattr(self, name, to)
        self._touch(at)

    def delete(self, *, at: datetime) -> None:
        """Take it out of sight; its name is free again."""
        self.deleted_at = at
        self._touch(at)

    def _check_names(self, changed: Mapping[str, object], *, is_operator: bool) -> None:
        if is_operator:
            return
        becomes_public = changed.get("visibility") == "public"
        is_offered = self.is_granted or self.visibility == "public"
        if becomes_public or ("name" in changed and is_offered):
            raise DeploymentOfOperatorError

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.revision += 1


def _check_each_once(targets: Sequence[Target]) -> None:
    seen: set[TargetThing] = set()
    for index, target in enumerate(targets):
        if target.to in seen:
            raise TargetTwiceError(index)
        seen.add(target.to)


class DeploymentRepository(Protocol):
    """Finds the tenant's own deployments."""

    async def get(self, deployment_id: DeploymentId) -> Deployment:
        """Load the deployment with its targets, locked.

        Raises:
            DeploymentNotFoundError: not there, deleted, or another tenant's.
        """
        ...

    async def is_name_taken(self, name: DeploymentName) -> bool: ...

    async def count(self) -> int:
        """Count the tenant's deployments; nobody adds one until the commit."""
        ...

    async def add(self, deployment: Deployment) -> None: ...

    async def put_targets(self, deployment: Deployment) -> None:
        """Keep its targets as they are now, in their order; others are gone."""
        ...

    async def grant(self, deployment_id: DeploymentId, grant: Grant) -> tuple[Grant, bool]:
        """Have the grant, or the one the tenant had before; and tell whether it is new.

        Raises:
            TooManyDeploymentGrantsError.
        """
        ...

    async def revoke(self, deployment_id: DeploymentId, grantee_id: TenantId) -> None:
        """Have the grant no longer.

        Raises:
            DeploymentGrantNotFoundError.
        """
        ...
