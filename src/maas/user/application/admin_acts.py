"""What is done to a person's access, each act within a transaction that its caller commits."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TypeAlias

from maas.audit.public import current_scope
from maas.shared.domain.clock import Clock
from maas.shared.domain.errors import PermissionDeniedError
from maas.shared.domain.ids import AccountId, TenantId, new_id
from maas.shared.domain.principal import Principal
from maas.user.application.admin_ports import AdminUnitOfWork, SessionEffects, names_of
from maas.user.application.admin_trail import MEMBER
from maas.user.application.errors import AccountNotFoundError
from maas.user.domain.account import Account, DisplayName, EmailAddress, Username
from maas.user.domain.grants import Granter, check_remaining, guarded_loss
from maas.user.domain.role import RoleName
from maas.user.domain.tenant import MemberNotFoundError, Membership

CheckVersion: TypeAlias = Callable[[int], None]
"""Raises `PreconditionFailedError` unless the version is one the caller's If-Match names."""

PLATFORM_ACCOUNTS = "platform:account-write"


class AccountElsewhereError(PermissionDeniedError):
    code = "account-elsewhere"
    title = "The account is not this tenant's alone"

    def __init__(self) -> None:
        super().__init__(
            "The person has another home or belongs to other tenants too, so only the platform's "
            "administrators may change the account itself."
        )


def granter_of(principal: Principal) -> Granter:
    """Whoever acts on the people of their own tenant."""
    return Granter(
        account_id=principal.account_id,
        rights=principal.grantable,
        is_limited=principal.key_limits is not None,
        is_program=principal.kind == "service_account",
    )


def platform_granter_of(principal: Principal) -> Granter:
    """Whoever acts on any tenant's people by a platform permission.

    Tenant rights are all theirs to give; those over the platform only as far as they hold them. A
    limited key gives nothing here either.
    """
    granter = granter_of(principal)
    return granter if granter.is_limited else replace(granter, rights=granter.rights | {"*:*"})


async def check_given(
    uow: AdminUnitOfWork,
    granter: Granter,
    target: AccountId,
    *,
    before: Collection[RoleName],
    after: Collection[RoleName],
) -> None:
    """Refuse to take these roles, or to give those, and keep them all as they are.

    Raises:
        RoleNotFoundError, OwnRolesError, BeyondOwnRightsError, LimitedKeyError.
    """
    granter.check_assign(
        target,
        before=await uow.roles.list_named(before),
        after=await uow.roles.list_named(after),
        own=await uow.roles.list_held(granter.account_id) if granter.is_program else (),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMember:
    """A person to be; without a password, one is made for them."""

    username: Username
    email: EmailAddress
    display_name: DisplayName | None
    password: str | None
    roles: frozenset[RoleName]


@dataclass(frozen=True, slots=True, kw_only=True)
class HashedMember:
    """A person to be, whose password is hashed; what was generated is shown once."""

    new: NewMember
    password_hash: str
    generated: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A person acted on: both rows are locked."""

    account: Account
    membership: Membership


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessActs:
    clock: Clock

    async def enlist(
        self, uow: AdminUnitOfWork, granter: Granter, tenant_id: TenantId, hashed: HashedMember
    ) -> Target:
        """Make an account that is at home in the tenant."""
        new, now = hashed.new, self.clock.now()
        await check_given(uow, granter, AccountId(new_id()), before=(), after=new.roles)
        account = Account(
            id=AccountId(new_id()),
            username=new.username,
            email=new.email,
            display_name=new.display_name,
            password_hash=hashed.password_hash,
            password_change_required=True,
            status="active",
            home_tenant_id=tenant_id,
            last_tenant_id=None,
            created_at=now,
            updated_at=now,
        )
        uow.accounts.add(account)
        # The account's row first: the membership refers to it.
        await uow.act_in(tenant_id)
        membership = self.join(uow, account.id, tenant_id, new.roles)
        current_scope().change(
            MEMBER,
            account.id,
            after={"status": "active", "roles": names_of(new.roles)},
        )
        return Target(account=account, membership=membership)

    def join(
        self,
        uow: AdminUnitOfWork,
        account_id: AccountId,
        tenant_id: TenantId,
        names: Collection[RoleName],
    ) -> Membership:
        now = self.clock.now()
        membership = Membership(
            tenant_id=tenant_id,
            account_id=account_id,
            status="active",
            status_reason=None,
            created_at=now,
            updated_at=now,
            grants=[],
            version=0,
        )
        membership.assign(names, at=now)
        uow.memberships.add(membership)
        return membership

    async def assign(
        self,
        uow: AdminUnitOfWork,
        granter: Granter,
        account_id: AccountId,
        names: Collection[RoleName],
        *,
        check: CheckVersion,
    ) -> tuple[Target, SessionEffects]:
        """Have a member hold exactly these roles; their sessions live on with the new rights."""
        target = await self.find(uow, account_id, check=check)
        membership = target.membership
        before = membership.role_names
        wanted = frozenset(names)
        # What stays as it is needs no rights: somebody else gave it.
        await check_given(uow, granter, account_id, before=before - wanted, after=wanted - before)
        await self.check_somebody_remains(uow, target, keeping=names_of(wanted))
        if wanted != before:
            membership.assign(wanted, at=self.clock.now())
        current_scope().change(
            MEMBER,
            account_id,
            before={"roles": names_of(before)},
            after={"roles": names_of(wanted)},
        )
        return target, await uow.sessions.refresh_account(account_id)

    async def suspend(
        self,
        uow: AdminUnitOfWork,
        granter: Granter,
        account_id: AccountId,
        reason: str,
        *,
        check: CheckVersion,
    ) -> tuple[Target, SessionEffects]:
        """Keep a member out of this tenant; their sessions in it end."""
        target = await self._act_on(uow, granter, account_id, check=check)
        await self.check_somebody_remains(uow, target, keeping=())
        now, was = self.clock.now(), target.membership.status
        target.membership.suspend(reason, at=now)
        scope = current_scope()
        scope.change(MEMBER, account_id, before={"status": was}, after={"status": "suspended"})
        scope.reason = reason
        ended = await uow.sessions.end(account_id, "suspended", at=now, everywhere=False)
        return target, ended

    async def restore(
        self,
        uow: AdminUnitOfWork,
        granter: Granter,
        account_id: AccountId,
        *,
        check: CheckVersion,
    ) -> Target:
        """Let a suspended member in again."""
        target = await self._act_on(uow, granter, account_id, check=check)
        was = target.membership.status
        if not target.membership.is_active:
            target.membership.restore(at=self.clock.now())
        current_scope().change(
            MEMBER, account_id, before={"status": was}, after={"status": "active"}
        )
        return target

    async def remove(
        self,
        uow: AdminUnitOfWork,
        granter: Granter,
        account_id: AccountId,
        tenant_id: TenantId,
        *,
        check: CheckVersion,
    ) -> SessionEffects:
        """Take a member out of the tenant; the account goes too if it has no other place."""
        target = await self._act_on(uow, granter, account_id, check=check)
        await self.check_somebody_remains(uow, target, keeping=())
        is_last_place = (
            target.account.home_tenant_id == tenant_id
            and not await uow.is_member_elsewhere(account_id)
        )
        ended = await uow.sessions.end(
            account_id, "removed", at=self.clock.now(), everywhere=is_last_place
        )
        roles = names_of(target.membership.role_names)
        await uow.memberships.remove(target.membership)
        is_deleted = is_last_place and await uow.forget(account_id)
        if is_deleted:
            current_scope().forget_person(
                account_id,
                names=[str(target.account.username)],
                emails=[str(target.account.email)],
            )
        current_scope().change(
            MEMBER,
            account_id,
            before={"status": target.membership.status, "roles": roles},
            after={"is_account_deleted": is_deleted},
        )
        return ended

    async def find(
        self, uow: AdminUnitOfWork, account_id: AccountId, *, check: CheckVersion
    ) -> Target:
        """Load a member, locked, one change of access in the tenant at a time.

        Raises:
            MemberNotFoundError, PreconditionFailedError.
        """
        await uow.lock_guarded_roles()
        current_scope().resource(MEMBER, account_id)
        account = await self._get_account(uow, account_id)
        membership = await uow.memberships.find(account_id)
        if membership is None:
            raise MemberNotFoundError
        check(account.version + membership.version)
        return Target(account=account, membership=membership)

    async def find_account(
        self,
        uow: AdminUnitOfWork,
        principal: Principal,
        account_id: AccountId,
        *,
        check: CheckVersion,
    ) -> Target:
        """Load a member whose account itself is to be changed.

        Raises:
            AccountElsewhereError: the account is at home or a member elsewhere, and the caller has
                no right over the platform's accounts.
            BeyondOwnRightsError: the person may do more than the caller, in whatever tenant.
        """
        target = await self.find(uow, account_id, check=check)
        await self._check_owned(uow, principal, target.account)
        return target

    async def find_resettable(
        self, uow: AdminUnitOfWork, principal: Principal, account_id: AccountId
    ) -> Account:
        """Load an account whose password is to be set; the platform's administrators reach any.

        Raises:
            MemberNotFoundError, AccountElsewhereError, BeyondOwnRightsError.
        """
        current_scope().resource(MEMBER, account_id)
        account = await self._get_account(uow, account_id)
        is_member = await uow.memberships.find(account_id) is not None
        if not (is_member or principal.may(PLATFORM_ACCOUNTS)):
            raise MemberNotFoundError
        await self._check_owned(uow, principal, account)
        return account

    async def _get_account(self, uow: AdminUnitOfWork, account_id: AccountId) -> Account:
        """Load an account, locked; whether one is there that is no member stays untold."""
        try:
            return await uow.accounts.get(account_id)
        except AccountNotFoundError:
            raise MemberNotFoundError from None

    async def _check_owned(
        self, uow: AdminUnitOfWork, principal: Principal, account: Account
    ) -> None:
        is_platforms = principal.may(PLATFORM_ACCOUNTS)
        is_ours = (
            account.home_tenant_id == principal.tenant_id
            and not await uow.is_member_elsewhere(account.id)
        )
        if not (is_ours or is_platforms):
            raise AccountElsewhereError
        # Whoever may set a person's password or address has all the person's rights, so a key that
        # is the person's own and may do less is held to what it may do.
        if account.id != principal.account_id or principal.api_key_id is not None:
            granter = platform_granter_of(principal) if is_platforms else granter_of(principal)
            granter.check_within(await uow.list_rights(account.id))

    async def _act_on(
        self,
        uow: AdminUnitOfWork,
        granter: Granter,
        account_id: AccountId,
        *,
        check: CheckVersion,
    ) -> Target:
        target = await self.find(uow, account_id, check=check)
        held = await uow.roles.list_named(target.membership.role_names)
        granter.check_act_on(account_id, rights=[p for role in held for p in role.permissions])
        return target

    async def check_somebody_remains(
        self, uow: AdminUnitOfWork, target: Target, *, keeping: Collection[str]
    ) -> None:
        """Refuse to let the last active holder of a guarded role go; the roles are locked.

        Raises:
            LastAdminError.
        """
        if not (target.membership.is_active and target.account.status == "active"):
            return
        lost = guarded_loss(names_of(target.membership.role_names), keeping)
        if lost:
            others = await uow.memberships.count_active(lost, besides=target.account.id)
            check_remaining(lost, others)
