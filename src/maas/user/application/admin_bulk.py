"""Many acts on people at once: all of them or none, or each by itself with a report."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, assert_never

from typing_extensions import override

from maas.audit.public import audit_row, audit_scope, current_scope
from maas.shared.domain.errors import MaasError, PermissionDeniedError, RuleViolatedError
from maas.shared.domain.ids import AccountId
from maas.shared.domain.principal import Principal
from maas.user.application.admin_acts import (
    AccessActs,
    HashedMember,
    NewMember,
    granter_of,
)
from maas.user.application.admin_ports import AdminUnitOfWork, SessionEffects, SessionMarks
from maas.user.application.members import InitialPasswords
from maas.user.domain.role import RoleName

BulkMode: TypeAlias = Literal["all-or-nothing", "each"]

MAX_BULK_ROWS = 1_000
HASHED_AT_ONCE = 2
"""Sign-ins share the threads that hash."""


@dataclass(frozen=True, slots=True)
class BulkSuspend:
    account_id: AccountId
    reason: str


@dataclass(frozen=True, slots=True)
class BulkRestore:
    account_id: AccountId


@dataclass(frozen=True, slots=True)
class BulkAssign:
    account_id: AccountId
    roles: frozenset[RoleName]


@dataclass(frozen=True, slots=True)
class BulkRemove:
    account_id: AccountId


BulkRow: TypeAlias = NewMember | BulkSuspend | BulkRestore | BulkAssign | BulkRemove
_Prepared: TypeAlias = HashedMember | BulkSuspend | BulkRestore | BulkAssign | BulkRemove

_NEEDS: Mapping[type[BulkRow], tuple[str, str]] = {
    NewMember: ("user.created", "user:write"),
    BulkSuspend: ("user.suspended", "user:write"),
    BulkRestore: ("user.restored", "user:write"),
    BulkAssign: ("user.roles_changed", "role:grant"),
    BulkRemove: ("user.removed", "user:delete"),
}
"""What each kind of row is audited as, and the permission it takes."""


class BulkRefusedError(RuleViolatedError):
    """One row was refused, so none was done; `row` and `cause` say which and why."""

    code = "bulk-refused"
    title = "A row was refused, so nothing was done"

    def __init__(self, row: int, cause: MaasError) -> None:
        super().__init__(f"Row {row}: {cause.detail}")
        self.row = row
        self.cause = cause

    @property
    @override
    def extensions(self) -> Mapping[str, object]:
        return {"row": self.row, "cause": self.cause.code}


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkOutcome:
    """What became of a row, counted from 0."""

    row: int
    outcome: Literal["done", "refused"]
    id: AccountId | None
    initial_password: str | None
    code: str | None
    detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkService:
    unit_of_work: Callable[[], AdminUnitOfWork]
    acts: AccessActs
    initial: InitialPasswords
    marks: SessionMarks

    async def run(
        self, principal: Principal, rows: Sequence[BulkRow], mode: BulkMode
    ) -> list[BulkOutcome]:
        """Do the rows in their order; each leaves its own event.

        Raises:
            PermissionDeniedError: a kind of row takes a permission the caller lacks.
            BulkRefusedError: all or nothing, and it was nothing.
        """
        for kind in {type(row) for row in rows}:
            _, permission = _NEEDS[kind]
            if not principal.may(permission):
                raise PermissionDeniedError(f"A row needs the permission `{permission}`.")
        prepared = await self._prepare(rows)
        if mode == "each":
            return await self._each(principal, rows, prepared)
        return await self._all(principal, rows, prepared)

    async def _all(
        self,
        principal: Principal,
        rows: Sequence[BulkRow],
        prepared: Sequence[_Prepared | MaasError],
    ) -> list[BulkOutcome]:
        effects, outcomes = SessionEffects(), []
        async with self.unit_of_work() as uow:
            for index, (row, ready) in enumerate(zip(rows, prepared, strict=True)):
                with _blaming(index), audit_row(_NEEDS[type(row)][0]):
                    if isinstance(ready, MaasError):
                        raise ready
                    account_id = await self._do(uow, principal, ready, effects)
                outcomes.append(_done(index, account_id, ready))
            with _blaming(len(rows) - 1):
                await uow.act_in(principal.tenant_id)
            await uow.commit()
        await self.marks.announce(effects)
        return outcomes

    async def _each(
        self,
        principal: Principal,
        rows: Sequence[BulkRow],
        prepared: Sequence[_Prepared | MaasError],
    ) -> list[BulkOutcome]:
        effects, outcomes = SessionEffects(), []
        for index, (row, ready) in enumerate(zip(rows, prepared, strict=True)):
            try:
                async with audit_scope(_NEEDS[type(row)][0]):
                    if isinstance(ready, MaasError):
                        raise ready
                    reached = SessionEffects()
                    async with self.unit_of_work() as uow:
                        account_id = await self._do(uow, principal, ready, reached)
                        await uow.commit()
                effects.add(reached)
                outcomes.append(_done(index, account_id, ready))
            except MaasError as exc:
                outcomes.append(_refused(index, exc))
        # Each row has left its own event; this one would be one too many.
        current_scope().skip()
        await self.marks.announce(effects)
        return outcomes

    async def _do(
        self,
        uow: AdminUnitOfWork,
        principal: Principal,
        row: _Prepared,
        effects: SessionEffects,
    ) -> AccountId:
        granter = granter_of(principal)
        match row:
            case HashedMember():
                target = await self.acts.enlist(uow, granter, principal.tenant_id, row)
                return target.account.id
            case BulkSuspend():
                _, reached = await self.acts.suspend(
                    uow, granter, row.account_id, row.reason, check=_any_version
                )
            case BulkRestore():
                await self.acts.restore(uow, granter, row.account_id, check=_any_version)
                reached = SessionEffects()
            case BulkAssign():
                _, reached = await self.acts.assign(
                    uow, granter, row.account_id, row.roles, check=_any_version
                )
            case BulkRemove():
                reached = await self.acts.remove(
                    uow, granter, row.account_id, principal.tenant_id, check=_any_version
                )
            case _:
                assert_never(row)
        effects.add(reached)
        return row.account_id

    async def _prepare(self, rows: Sequence[BulkRow]) -> list[_Prepared | MaasError]:
        """Hash the new passwords, before any transaction, a few at a time."""
        gate = asyncio.Semaphore(HASHED_AT_ONCE)

        async def prepare(row: BulkRow) -> _Prepared | MaasError:
            if not isinstance(row, NewMember):
                return row
            async with gate:
                try:
                    return await self.initial.prepare(row)
                except MaasError as exc:
                    return exc

        return list(await asyncio.gather(*(prepare(row) for row in rows)))


@contextmanager
def _blaming(index: int) -> Iterator[None]:
    try:
        yield
    except MaasError as exc:
        raise BulkRefusedError(index, exc) from exc


def _done(index: int, account_id: AccountId, row: _Prepared | MaasError) -> BulkOutcome:
    return BulkOutcome(
        row=index,
        outcome="done",
        id=account_id,
        initial_password=row.generated if isinstance(row, HashedMember) else None,
        code=None,
        detail=None,
    )


def _refused(index: int, error: MaasError) -> BulkOutcome:
    return BulkOutcome(
        row=index,
        outcome="refused",
        id=None,
        initial_password=None,
        code=error.code,
        detail=error.detail,
    )


def _any_version(version: int) -> None:
    """Accept every version."""
