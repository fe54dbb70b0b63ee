"""Names of a model that point at one of its versions, and every move they made."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from typing_extensions import override

from maas.model.domain.text import Reason, VersionName
from maas.model.domain.version import ModelVersion
from maas.model.public import ModelId, VersionId, VersionStatus
from maas.shared.domain.errors import InvalidInputError, NotFoundError, RuleViolatedError
from maas.shared.domain.ids import AccountId, TenantId

POINTED_AT: frozenset[VersionStatus] = frozenset({"ready", "deprecated"})
"""What an alias may point at: files that never change."""

MAX_ALIASES: Final = 1_000
"""Of one model, that point somewhere; all of a version are words of its one row for searches."""

_NAMED: Final = 5
_TICK = timedelta(microseconds=1)
_NAME = re.compile(r"[A-Za-z0-9._+-]{1,64}")
_DOTS = re.compile(r"\.{1,2}")


class InvalidAliasNameError(InvalidInputError):
    code = "invalid-alias-name"
    title = "Not a name of an alias"

    def __init__(self) -> None:
        super().__init__(
            "An alias has 1 to 64 letters, digits, dots, dashes, underscores or plus signs "
            "(ASCII), as in production, and is not `.` or `..`."
        )


class AliasNotFoundError(NotFoundError):
    code = "alias-not-found"
    title = "No such alias of this model"


class AliasNotThenError(NotFoundError):
    code = "alias-not-then"
    title = "The alias was not there at that time"

    def __init__(self) -> None:
        super().__init__("The first move of the alias was later.")


class VersionNotReadyError(RuleViolatedError):
    code = "version-not-ready"
    title = "An alias cannot point at the version"

    def __init__(self, status: VersionStatus) -> None:
        super().__init__(
            f"The version is {status}: an alias points at one that is ready or deprecated."
        )


class TooManyAliasesError(RuleViolatedError):
    code = "too-many-aliases"
    title = "The model has all the aliases it can have"

    def __init__(self) -> None:
        super().__init__(f"A model has at most {MAX_ALIASES} aliases: delete some first.")


class VersionAliasedError(RuleViolatedError):
    code = "version-aliased"
    title = "An alias points at the version"

    def __init__(self, names: list[str]) -> None:
        named = ", ".join(f"`{name}`" for name in names[:_NAMED])
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        super().__init__(
            f"Point {named}{more} at another version, or delete it, before this one is archived."
        )


@dataclass(frozen=True, slots=True)
class AliasName:
    """A name like `production`, unique in its model; case matters."""

    value: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.value) or _DOTS.fullmatch(self.value):
            raise InvalidAliasNameError

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(eq=False, kw_only=True)
class AliasMove:
    """Where an alias pointed from `at` on, until its next move; `None` is nowhere.

    Versions are named, for one that nothing points at any more may be deleted.
    """

    model_id: ModelId
    alias: AliasName
    sequence: int
    tenant_id: TenantId
    version_id: VersionId | None
    version: VersionName | None
    previous_version: VersionName | None
    reason: Reason | None
    moved_by: AccountId
    at: datetime


@dataclass(eq=False, kw_only=True)
class Alias:
    """Where a name points now. One that points nowhere is kept: its next move goes on counting.

    `sequence` is that of its last move, 0 before the first, and stands for it in ETags.
    """

    model_id: ModelId
    name: AliasName
    tenant_id: TenantId
    version_id: VersionId | None = None
    version: VersionName | None = None
    reason: Reason | None = None
    sequence: int = 0
    moved_by: AccountId | None = None
    moved_at: datetime | None = None

    @property
    def revision(self) -> int | None:
        """What an ETag tells; nothing while there is nothing to be seen."""
        return None if self.version_id is None else self.sequence

    def point_at(
        self, version: ModelVersion, *, reason: Reason | None, by: AccountId, at: datetime
    ) -> AliasMove | None:
        """Point at a version; tell of the move, if it is one.

        Raises:
            VersionNotReadyError: its files may still change, or are on their way out.
        """
        if version.status not in POINTED_AT:
            raise VersionNotReadyError(version.status)
        if version.id == self.version_id:
            return None
        return self._move(version.id, version.name, reason=reason, by=by, at=at)

    def remove(self, *, by: AccountId, at: datetime) -> AliasMove:
        """Point nowhere.

        Raises:
            AliasNotFoundError: it does already.
        """
        if self.version_id is None:
            raise AliasNotFoundError
        return self._move(None, None, reason=None, by=by, at=at)

    def _move(
        self,
        version_id: VersionId | None,
        version: VersionName | None,
        *,
        reason: Reason | None,
        by: AccountId,
        at: datetime,
    ) -> AliasMove:
        # Two moves never share a moment, whatever the clock does: each time has one answer.
        at = at if self.moved_at is None else max(at, self.moved_at + _TICK)
        move = AliasMove(
            model_id=self.model_id,
            alias=self.name,
            sequence=self.sequence + 1,
            tenant_id=self.tenant_id,
            version_id=version_id,
            version=version,
            previous_version=self.version,
            reason=reason,
            moved_by=by,
            at=at,
        )
        self.version_id, self.version, self.reason = version_id, version, reason
        self.sequence, self.moved_by, self.moved_at = move.sequence, by, at
        return move


class AliasRepository(Protocol):
    async def get(self, model_id: ModelId, name: AliasName) -> Alias:
        """Load the alias, locked, so that its moves come one after the other.

        One that is not there yet is made, and points nowhere.
        """
        ...

    async def count(self, model_id: ModelId) -> int:
        """Tell how many of the model point somewhere; nobody counts them until the commit.

        Whoever adds one asks, so there is never one more than was allowed.
        """
        ...

    async def now(self) -> datetime:
        """Tell the time by the one clock that all processes share."""
        ...

    def add_move(self, move: AliasMove) -> None: ...

    async def list_names(self, version_id: VersionId) -> list[str]:
        """Name all that point at the version."""
        ...
