"""Leaving: one's own account, deactivated until an administrator restores it, or deleted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from maas.audit.public import audit_row, current_scope
from maas.shared.domain.clock import Clock
from maas.shared.domain.errors import ConflictError
from maas.shared.domain.ids import AccountId
from maas.shared.domain.principal import Principal
from maas.user.application.admin_acts import AccessActs, Target
from maas.user.application.admin_ports import AdminUnitOfWork, SessionMarks, names_of
from maas.user.application.admin_trail import MEMBER
from maas.user.application.errors import WrongPasswordError
from maas.user.application.own_password import OwnPassword
from maas.user.domain.account import Account


class JoinedMeanwhileError(ConflictError):
    """The account was joined to a tenant at the same moment."""

    code = "joined-meanwhile"
    title = "You were joined to a tenant just now"

    def __init__(self) -> None:
        super().__init__("You were joined to a tenant at the same moment: try again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Everywhere:
    """An account and its place in each of its tenants."""

    account: Account
    targets: Sequence[Target]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnAccountService:
    """Asks for the password again: a session left open is not enough to end an account."""

    unit_of_work: Callable[[], AdminUnitOfWork]
    acts: AccessActs
    own_password: OwnPassword
    marks: SessionMarks
    clock: Clock

    async def deactivate(self, principal: Principal, *, current_password: str) -> None:
        """Keep oneself out everywhere until an administrator lets one in; all sessions end.

        Raises:
            WrongPasswordError: the current password is not that.
            TooManyLoginsError: too soon after wrong ones.
            LastAdminError: a tenant or the platform would have no administrator left.
        """
        confirmed = await self._confirm(principal.account_id, current_password)
        now = self.clock.now()
        async with self.unit_of_work() as uow:
            found = await self._find_all(uow, principal.account_id, confirmed)
            account = found.account
            was = account.status
            account.deactivate(at=now)
            ended = await uow.sessions.end(account.id, "deactivated", at=now, everywhere=True)
            await uow.act_in(principal.tenant_id)
            current_scope().change(
                MEMBER, account.id, before={"status": was}, after={"status": account.status}
            )
            await uow.commit()
        await self.marks.announce(ended)

    async def delete(self, principal: Principal, *, current_password: str) -> None:
        """Delete oneself for good; what one did stays in the trail, without one's name.

        Raises:
            WrongPasswordError, TooManyLoginsError, LastAdminError: as for `deactivate`.
            JoinedMeanwhileError: somebody joined the account to a tenant meanwhile.
        """
        account_id = principal.account_id
        confirmed = await self._confirm(account_id, current_password)
        async with self.unit_of_work() as uow:
            found = await self._find_all(uow, account_id, confirmed)
            ended = await uow.sessions.end(
                account_id, "removed", at=self.clock.now(), everywhere=True
            )
            for target in found.targets:
                membership = target.membership
                # Each tenant's own trail tells that its member is gone.
                with audit_row("account.deleted") as row:
                    row.tenant_id = membership.tenant_id
                    row.change(
                        MEMBER,
                        account_id,
                        before={
                            "status": membership.status,
                            "roles": names_of(membership.role_names),
                        },
                        after={"is_account_deleted": True},
                    )
                await uow.act_in(membership.tenant_id)
                await uow.memberships.remove(membership)
            await uow.act_in(principal.tenant_id)
            if not await uow.forget(account_id):
                raise JoinedMeanwhileError
            scope = current_scope()
            scope.resource(MEMBER, account_id)
            scope.forget_person(
                account_id,
                names=[str(found.account.username)],
                emails=[str(found.account.email)],
            )
            await uow.commit()
        await self.marks.announce(ended)

    async def _confirm(self, account_id: AccountId, password: str) -> str:
        """Compare the password, outside of any transaction; return the hash it fits."""
        async with self.unit_of_work() as uow:
            account = await uow.accounts.get(account_id)
        if not await self.own_password.is_right(account, password):
            raise WrongPasswordError
        return account.password_hash

    async def _find_all(
        self, uow: AdminUnitOfWork, account_id: AccountId, confirmed: str
    ) -> _Everywhere:
        """Load the account and all its memberships, locked, and see that others remain."""
        places = await uow.list_places(account_id)
        # Every tenant's roles before the account, as whoever changes access elsewhere does.
        for place in places:
            await uow.act_in(place)
            await uow.lock_guarded_roles()
        account = await uow.accounts.get(account_id)
        if account.password_hash != confirmed:
            raise WrongPasswordError
        targets = []
        for place in places:
            await uow.act_in(place)
            membership = await uow.memberships.find(account_id)
            if membership is not None:
                target = Target(account=account, membership=membership)
                await self.acts.check_somebody_remains(uow, target, keeping=())
                targets.append(target)
        return _Everywhere(account=account, targets=targets)
