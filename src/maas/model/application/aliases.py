"""Pointing aliases at versions, and telling where they pointed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self, TypeAlias

from maas.audit.public import ChangeValue, current_scope
from maas.model.application.ports import ModelUnitOfWork
from maas.model.application.trail import MODEL_ALIAS
from maas.model.domain.alias import MAX_ALIASES, Alias, AliasName, TooManyAliasesError
from maas.model.domain.text import Reason, VersionName
from maas.model.public import ModelId, VersionId
from maas.shared.domain.ids import AccountId
from maas.shared.domain.page import Page, PageRequest, TextPageRequest, TextPosition
from maas.shared.domain.principal import Principal

CheckAlias: TypeAlias = Callable[[int | None], None]
"""Raises `PreconditionFailedError` unless the caller's conditions let go of what is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasDetails:
    """Where an alias points; `sequence` counts the moves it made."""

    model_id: ModelId
    alias: str
    version_id: VersionId
    version: str
    reason: str | None
    sequence: int
    moved_by: AccountId
    moved_at: datetime

    @classmethod
    def of(cls, alias: Alias) -> Self:
        """Show one that points somewhere."""
        if alias.version_id is None or alias.moved_by is None or alias.moved_at is None:
            message = "the alias points nowhere"
            raise ValueError(message)
        return cls(
            model_id=alias.model_id,
            alias=str(alias.name),
            version_id=alias.version_id,
            version=str(alias.version),
            reason=None if alias.reason is None else str(alias.reason),
            sequence=alias.sequence,
            moved_by=alias.moved_by,
            moved_at=alias.moved_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMoveDetails:
    """Where an alias pointed from `at` on; a version of `None` is nowhere."""

    sequence: int
    version_id: VersionId | None
    version: str | None
    previous_version: str | None
    reason: str | None
    moved_by: AccountId
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PointedAlias:
    alias: AliasDetails
    is_new: bool


class AliasQueries(Protocol):
    """What the caller may not read of is not found."""

    async def get_alias(
        self, caller: Principal, model_id: ModelId, name: AliasName
    ) -> AliasDetails:
        """Raises ModelNotFoundError, AliasNotFoundError."""
        ...

    async def list_aliases(
        self, caller: Principal, model_id: ModelId, page: TextPageRequest
    ) -> Page[AliasDetails, TextPosition]:
        """List those that point somewhere, by name.

        Raises ModelNotFoundError.
        """
        ...

    async def list_moves(
        self, caller: Principal, model_id: ModelId, name: AliasName, page: PageRequest
    ) -> Page[AliasMoveDetails]:
        """List all moves, the newest first, of a deleted alias too.

        Raises ModelNotFoundError, AliasNotFoundError.
        """
        ...

    async def get_move_at(
        self, caller: Principal, model_id: ModelId, name: AliasName, at: datetime
    ) -> AliasMoveDetails:
        """Tell the last move that was made by then.

        Raises ModelNotFoundError, AliasNotFoundError, AliasNotThenError.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasService:
    unit_of_work: Callable[[], ModelUnitOfWork]

    async def point(
        self,
        principal: Principal,
        model_id: ModelId,
        name: AliasName,
        version: VersionName,
        *,
        reason: Reason | None,
        check: CheckAlias,
    ) -> PointedAlias:
        """Let an alias point at a version; at the one it points at already changes nothing.

        What changes nothing is in the trail all the same: one event, without changes.

        Raises:
            ModelNotFoundError, VersionNotFoundError, VersionNotReadyError, TooManyAliasesError.
        """
        async with self.unit_of_work() as uow:
            # Locked, so that it is not archived meanwhile; before the alias, for which others wait.
            target = await uow.versions.get(model_id, version)
            alias = await uow.aliases.get(model_id, name)
            current_scope().resource(MODEL_ALIAS, _alias_id(alias))
            before = _trail(alias)
            check(alias.revision)
            if before is None and await uow.aliases.count(model_id) >= MAX_ALIASES:
                raise TooManyAliasesError
            move = alias.point_at(
                target, reason=reason, by=principal.account_id, at=await uow.aliases.now()
            )
            if move is not None:
                uow.aliases.add_move(move)
            current_scope().change(
                MODEL_ALIAS, _alias_id(alias), before=before, after=_trail(alias)
            )
            pointed = PointedAlias(alias=AliasDetails.of(alias), is_new=before is None)
            await uow.commit()
        return pointed

    async def delete(
        self, principal: Principal, model_id: ModelId, name: AliasName, *, check: CheckAlias
    ) -> None:
        """Let an alias point nowhere; its history stays.

        Raises:
            ModelNotFoundError, AliasNotFoundError.
        """
        async with self.unit_of_work() as uow:
            await uow.models.get(model_id)
            alias = await uow.aliases.get(model_id, name)
            current_scope().resource(MODEL_ALIAS, _alias_id(alias))
            before, revision = _trail(alias), alias.revision
            move = alias.remove(by=principal.account_id, at=await uow.aliases.now())
            check(revision)
            uow.aliases.add_move(move)
            current_scope().change(MODEL_ALIAS, _alias_id(alias), before=before)
            await uow.commit()


def _alias_id(alias: Alias) -> str:
    return f"{alias.model_id}/{alias.name}"


def _trail(alias: Alias) -> dict[str, ChangeValue] | None:
    if alias.version_id is None:
        return None
    return {
        "model_id": str(alias.model_id),
        "alias": str(alias.name),
        "version": str(alias.version),
        "reason": None if alias.reason is None else str(alias.reason),
    }
