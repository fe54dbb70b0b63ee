"""One's own account, and the first ones of a platform."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from maas.audit.public import current_scope
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, new_id
from maas.shared.domain.principal import Principal
from maas.user.application.admin_ports import SessionEffects, SessionMarks, marks_of
from maas.user.application.errors import SamePasswordError, WrongPasswordError
from maas.user.application.own_password import OwnPassword
from maas.user.application.ports import (
    PasswordHasher,
    Profile,
    UserQueries,
    UserUnitOfWork,
)
from maas.user.application.trail import ACCOUNT
from maas.user.domain.account import Account, DisplayName, EmailAddress, Username
from maas.user.domain.passwords import check_password
from maas.user.public import PLATFORM_ADMIN_ROLE

FirstAdminOrigin: TypeAlias = Literal["generated", "configured"]
"""Who chose the first admin's password: the platform itself, or its operator."""

CheckVersion: TypeAlias = Callable[[int], None]
"""Raises `PreconditionFailedError` unless the version is one the caller's If-Match names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountService:
    unit_of_work: Callable[[], UserUnitOfWork]
    queries: UserQueries
    passwords: PasswordHasher
    marks: SessionMarks
    own_password: OwnPassword
    clock: Clock
    password_min_length: int

    async def rename_self(
        self, principal: Principal, display_name: DisplayName | None, *, check: CheckVersion
    ) -> Profile:
        """Change how one is shown; `None` clears it, and the same again changes nothing."""
        async with self.unit_of_work() as uow:
            account = await uow.accounts.get(principal.account_id)
            check(account.version)
            current_scope().resource(ACCOUNT, account.id)
            if display_name != account.display_name:
                account.rename(display_name, at=self.clock.now())
                current_scope().change(ACCOUNT, account.id, after={"fields": ["display_name"]})
            await uow.commit()
        return await self.queries.get_profile(principal.account_id, principal.tenant_id)

    async def change_own_password(
        self,
        principal: Principal,
        *,
        current_password: str,
        new_password: str,
        revoke_api_keys: bool,
    ) -> None:
        """Change the password; other sessions and mailed links to a new password die with it.

        So do the API keys, in every tenant, if that is asked for.

        Raises:
            WrongPasswordError: the current password is not that.
            WeakPasswordError: the new one will not do.
            SamePasswordError: the new one is the current one.
            TooManyLoginsError: too soon after wrong ones; `retry_after` says how long to wait.
        """
        async with self.unit_of_work() as uow:
            account = await uow.accounts.get(principal.account_id)
        if not await self.own_password.is_right(account, current_password):
            raise WrongPasswordError
        check_password(
            new_password,
            username=account.username,
            email=account.email,
            min_length=self.password_min_length,
        )
        if new_password == current_password:
            raise SamePasswordError
        verified_hash, new_hash = account.password_hash, await self.passwords.hash(new_password)
        now = self.clock.now()
        async with self.unit_of_work() as uow:
            await uow.accounts.drop_reset_links(principal.account_id)
            account = await uow.accounts.get(principal.account_id)
            if account.password_hash != verified_hash:
                raise WrongPasswordError
            account.set_password(new_hash, at=now)
            # Keys before sessions, as whoever narrows a role takes them.
            keys = await uow.revoke_keys(account.id) if revoke_api_keys else []
            others = [
                session
                for session in await uow.sessions.list_live(account.id, at=now)
                if session.id != principal.session_id
            ]
            for session in others:
                session.revoke("password-changed", at=now)
            current_scope().change(
                ACCOUNT,
                account.id,
                after={"password_change_required": False, "api_keys_revoked": len(keys)},
            )
            await uow.commit()
        await self.marks.announce(SessionEffects(ended=marks_of(others), stale_keys=keys))

    async def create_admin(
        self, *, username: Username, email: EmailAddress, password: str
    ) -> AccountId:
        """Make an administrator of the platform and of the default tenant (for operators).

        Raises:
            UsernameTakenError, EmailTakenError: somebody has it already.
            WeakPasswordError: the password will not do.
        """
        account = await self._new_admin(username, email, password, must_change=False)
        await self._save_admin(account, mark=False)
        return account.id

    async def ensure_first_admin(
        self, *, username: Username, email: EmailAddress, password: str, origin: FirstAdminOrigin
    ) -> bool:
        """Make the platform's first administrator, once per database.

        Returns whether one was made: False when a first admin was made before, whatever became of
        the account since. A generated password must be changed at the first sign-in.
        """
        account = await self._new_admin(
            username, email, password, must_change=origin == "generated"
        )
        return await self._save_admin(account, mark=True)

    async def _new_admin(
        self, username: Username, email: EmailAddress, password: str, *, must_change: bool
    ) -> Account:
        check_password(
            password, username=username, email=email, min_length=self.password_min_length
        )
        now = self.clock.now()
        return Account(
            id=AccountId(new_id()),
            username=username,
            email=email,
            display_name=None,
            password_hash=await self.passwords.hash(password),
            password_change_required=must_change,
            status="active",
            home_tenant_id=DEFAULT_TENANT_ID,
            last_tenant_id=None,
            created_at=now,
            updated_at=now,
        )

    async def _save_admin(self, account: Account, *, mark: bool) -> bool:
        now, roles = self.clock.now(), ("admin", PLATFORM_ADMIN_ROLE)
        scope = current_scope()
        async with self.unit_of_work() as uow:
            await uow.act_in(DEFAULT_TENANT_ID)
            if mark and not await uow.mark_bootstrapped(at=now):
                scope.skip()
                return False
            uow.accounts.add(account)
            await uow.add_membership(account.id, DEFAULT_TENANT_ID, roles=roles, at=now)
            scope.tenant_id = DEFAULT_TENANT_ID
            scope.change(ACCOUNT, account.id, after={"status": "active", "roles": roles})
            await uow.commit()
        return True
