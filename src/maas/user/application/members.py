"""The people of a tenant, as its administrators make, change, suspend and remove them."""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from uuid import UUID

from typing_extensions import TypedDict, Unpack

from maas.audit.public import current_scope
from maas.shared.domain.errors import PermissionDeniedError, RuleViolatedError
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.domain.principal import Principal
from maas.user.application.admin_acts import (
    PLATFORM_ACCOUNTS,
    AccessActs,
    CheckVersion,
    HashedMember,
    NewMember,
    granter_of,
)
from maas.user.application.admin_ports import (
    AdminUnitOfWork,
    MemberCreated,
    MemberDetails,
    SessionEffects,
    SessionMarks,
)
from maas.user.application.admin_trail import MEMBER
from maas.user.application.ports import PasswordHasher
from maas.user.domain.account import Account, DisplayName, EmailAddress, Username
from maas.user.domain.grants import OwnRolesError
from maas.user.domain.passwords import check_password
from maas.user.domain.role import RoleName


class MemberChanges(TypedDict, total=False):
    """What may be changed of a person's own data; what is absent stays."""

    display_name: DisplayName | None
    email: EmailAddress
    home_tenant_id: UUID


class PlatformOnlyError(PermissionDeniedError):
    """Moving an account's home decides whose administrators look after it."""

    code = "platform-only"
    title = "Only the platform's administrators may do this"

    def __init__(self) -> None:
        super().__init__("Moving an account's home takes the platform's `account-write`.")


class NotAHomeError(RuleViolatedError):
    """The account is no active member of the tenant that is to be its home."""

    code = "not-a-home"
    title = "Not a home for this account"

    def __init__(self) -> None:
        super().__init__("An account's home is a tenant that it is an active member of.")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialPasswords:
    """Makes and hashes the passwords that administrators hand out."""

    passwords: PasswordHasher
    generate: Callable[[], str]
    min_length: int

    async def prepare(self, new: NewMember) -> HashedMember:
        """Hash a new person's password, made for them unless one is given.

        Raises:
            WeakPasswordError, HashingBusyError.
        """
        password, generated = self.choose(new.password, username=new.username, email=new.email)
        hashed = await self.passwords.hash(password)
        return HashedMember(new=new, password_hash=hashed, generated=generated)

    def choose(
        self, given: str | None, *, username: Username, email: EmailAddress
    ) -> tuple[str, str | None]:
        """Tell the password to be, and the same again if it is generated."""
        if given is None:
            generated = self.generate()
            return generated, generated
        check_password(given, username=username, email=email, min_length=self.min_length)
        return given, None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberService:
    unit_of_work: Callable[[], AdminUnitOfWork]
    acts: AccessActs
    initial: InitialPasswords
    marks: SessionMarks

    async def create(self, principal: Principal, new: NewMember) -> MemberCreated:
        """Make an account at home in the caller's tenant; its password must be changed at once.

        Raises:
            UsernameTakenError, EmailTakenError, WeakPasswordError, RoleNotFoundError,
            BeyondOwnRightsError.
        """
        hashed = await self.initial.prepare(new)
        async with self.unit_of_work() as uow:
            target = await self.acts.enlist(uow, granter_of(principal), principal.tenant_id, hashed)
            details = MemberDetails.of(target.account, target.membership)
            created = MemberCreated(**asdict(details), initial_password=hashed.generated)
            await uow.commit(created)
        return created

    async def revise(
        self,
        principal: Principal,
        account_id: AccountId,
        *,
        check: CheckVersion,
        **changes: Unpack[MemberChanges],
    ) -> MemberDetails:
        """Change a person's own data; only where the account is this tenant's alone.

        What is given as it is already changes nothing, the version included.

        Raises:
            MemberNotFoundError, AccountElsewhereError, BeyondOwnRightsError, EmailTakenError,
            PlatformOnlyError, NotAHomeError.
        """
        async with self.unit_of_work() as uow:
            target = await self.acts.find_account(uow, principal, account_id, check=check)
            account, now = target.account, self.acts.clock.now()
            before = _personal(account)
            if "display_name" in changes:
                account.rename(changes["display_name"], at=now)
            if "email" in changes:
                account.move_to(changes["email"], at=now)
            fields = [name for name, value in _personal(account).items() if value != before[name]]
            old_home = account.home_tenant_id
            if "home_tenant_id" in changes:
                await self._move_home(uow, principal, account, TenantId(changes["home_tenant_id"]))
            if fields or account.home_tenant_id != old_home:
                current_scope().change(
                    MEMBER,
                    account_id,
                    before={"home_tenant_id": str(old_home)},
                    after={"home_tenant_id": str(account.home_tenant_id), "fields": fields},
                )
            await uow.commit()
        return MemberDetails.of(account, target.membership)

    async def _move_home(
        self, uow: AdminUnitOfWork, principal: Principal, account: Account, home: TenantId
    ) -> None:
        if home == account.home_tenant_id:
            return
        if not principal.may(PLATFORM_ACCOUNTS):
            raise PlatformOnlyError
        await uow.act_in(home)
        membership = await uow.memberships.find(account.id)
        if membership is None or not membership.is_active:
            raise NotAHomeError
        await uow.act_in(principal.tenant_id)
        account.move_home(home, at=self.acts.clock.now())

    async def reactivate(self, principal: Principal, account_id: AccountId) -> None:
        """Let somebody in again who deactivated their account; others are left as they are.

        Raises:
            MemberNotFoundError, OwnRolesError, AccountElsewhereError, BeyondOwnRightsError.
        """
        if account_id == principal.account_id:
            raise OwnRolesError
        async with self.unit_of_work() as uow:
            account = await self.acts.find_resettable(uow, principal, account_id)
            was = account.status
            account.reactivate(at=self.acts.clock.now())
            current_scope().change(
                MEMBER, account_id, before={"status": was}, after={"status": account.status}
            )
            await uow.commit()

    async def assign(
        self,
        principal: Principal,
        account_id: AccountId,
        names: Collection[RoleName],
        *,
        check: CheckVersion,
    ) -> MemberDetails:
        """Have a member hold exactly these roles, from their next request on.

        Raises:
            MemberNotFoundError, RoleNotFoundError, OwnRolesError, BeyondOwnRightsError,
            LastAdminError.
        """
        async with self.unit_of_work() as uow:
            target, effects = await self.acts.assign(
                uow, granter_of(principal), account_id, names, check=check
            )
            await uow.commit()
        await self.marks.announce(effects)
        return MemberDetails.of(target.account, target.membership)

    async def suspend(
        self, principal: Principal, account_id: AccountId, reason: str, *, check: CheckVersion
    ) -> MemberDetails:
        """Keep a member out of the tenant until restored; their sessions in it end.

        Raises:
            MemberNotFoundError, OwnRolesError, BeyondOwnRightsError, LastAdminError.
        """
        async with self.unit_of_work() as uow:
            target, effects = await self.acts.suspend(
                uow, granter_of(principal), account_id, reason, check=check
            )
            await uow.commit()
        await self.marks.announce(effects)
        return MemberDetails.of(target.account, target.membership)

    async def restore(
        self, principal: Principal, account_id: AccountId, *, check: CheckVersion
    ) -> None:
        """Let a suspended member sign in again.

        Raises:
            MemberNotFoundError, OwnRolesError, BeyondOwnRightsError.
        """
        async with self.unit_of_work() as uow:
            await self.acts.restore(uow, granter_of(principal), account_id, check=check)
            await uow.commit()

    async def remove(
        self, principal: Principal, account_id: AccountId, *, check: CheckVersion
    ) -> None:
        """Take a member out; an account at home here and nowhere else is deleted with it.

        Raises:
            MemberNotFoundError, OwnRolesError, BeyondOwnRightsError, LastAdminError.
        """
        async with self.unit_of_work() as uow:
            effects = await self.acts.remove(
                uow, granter_of(principal), account_id, principal.tenant_id, check=check
            )
            await uow.commit()
        await self.marks.announce(effects)

    async def reset_password(
        self,
        principal: Principal,
        account_id: AccountId,
        password: str | None,
        *,
        revoke_api_keys: bool,
    ) -> str | None:
        """Give a person a new password, to be changed at once; sessions and mailed links end.

        API keys end with them if that is asked for.

        Returns the password if none was given.

        Raises:
            MemberNotFoundError, OwnRolesError, AccountElsewhereError, BeyondOwnRightsError,
            WeakPasswordError.
        """
        if account_id == principal.account_id:
            raise OwnRolesError
        async with self.unit_of_work() as uow:
            account = await self.acts.find_resettable(uow, principal, account_id)
        chosen, generated = self.initial.choose(
            password, username=account.username, email=account.email
        )
        password_hash = await self.initial.passwords.hash(chosen)
        async with self.unit_of_work() as uow:
            await uow.accounts.drop_reset_links(account_id)
            account = await self.acts.find_resettable(uow, principal, account_id)
            now = self.acts.clock.now()
            account.give_password(password_hash, at=now)
            effects = await uow.sessions.end(account_id, "password-reset", at=now, everywhere=True)
            keys = await uow.revoke_keys(account_id) if revoke_api_keys else []
            effects.add(SessionEffects(stale_keys=keys))
            current_scope().change(
                MEMBER,
                account_id,
                after={"password_change_required": True, "api_keys_revoked": len(keys)},
            )
            await uow.commit()
        await self.marks.announce(effects)
        return generated


def _personal(account: Account) -> dict[str, DisplayName | EmailAddress | None]:
    return {"display_name": account.display_name, "email": account.email}
