"""Loading and keeping what the admin area changes, and the transaction it shares."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Update, exists, func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from typing_extensions import override

from maas.shared.domain.errors import MaasError
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork
from maas.user.application.admin_ports import SessionEffects, SessionMark
from maas.user.application.errors import EmailTakenError, UsernameTakenError
from maas.user.application.ports import KeyMark
from maas.user.domain.account import Account
from maas.user.domain.role import (
    GUARDED_ROLES,
    Role,
    RoleInUseError,
    RoleName,
    RoleNameTakenError,
    RoleNotFoundError,
)
from maas.user.domain.service_account import (
    ServiceAccountNameTakenError,
    ServiceAccountNotFoundError,
)
from maas.user.domain.session import RevocationReason
from maas.user.domain.tenant import (
    MemberNotFoundError,
    Membership,
    Slug,
    Tenant,
    TenantNotFoundError,
    TenantSlugTakenError,
)
from maas.user.infrastructure.key_marks import (
    refresh_keys,
    refresh_keys_everywhere,
    refresh_keys_of_tenant,
    revoke_keys_everywhere,
)
from maas.user.infrastructure.key_tables import api_keys, service_account_roles
from maas.user.infrastructure.repositories import SqlAccountRepository
from maas.user.infrastructure.tables import (
    accounts,
    membership_roles,
    memberships,
    roles,
    sessions,
    tenants,
)

_TAKEN: Mapping[str, type[MaasError]] = {
    "uq_accounts_username_key": UsernameTakenError,
    "uq_accounts_email_key": EmailTakenError,
    "pk_roles": RoleNameTakenError,
    "uq_tenants_slug": TenantSlugTakenError,
    # Somebody was given the role, or lost it, since it was looked at.
    "fk_membership_roles_tenant_id_role_name": RoleInUseError,
    "fk_service_account_roles_tenant_id_role_name": RoleInUseError,
    "uq_service_accounts_tenant_id_name": ServiceAccountNameTakenError,
    # The person left the tenant, or the service account was deleted, since it was looked at.
    "fk_api_keys_tenant_id_account_id": MemberNotFoundError,
    "fk_api_keys_tenant_id_service_account_id": ServiceAccountNotFoundError,
}


# Row-level security keeps it to the tenant acted in.
_WITHDRAW = text("""
    UPDATE invitations SET revoked_at = clock_timestamp()
    WHERE lower(email) = lower(:email) AND accepted_at IS NULL AND revoked_at IS NULL
""")


_SHARED = "maas_shared_tenants"


async def share_tenant(session: AsyncSession, tenant_id: TenantId | None) -> None:
    """Keep the tenant from being closed, and its roles from being narrowed, once a transaction.

    Whoever changes a role or the tenant locks the tenant first. Whoever gives a role, or changes a
    key, and so waits for rows that such a change has locked, comes here first as well: so neither
    ever waits for the other in the middle.
    """
    shared: set[TenantId | None] = session.info.setdefault(_SHARED, set())
    if tenant_id in shared:
        return
    shared.add(tenant_id)
    statement = select(tenants.c.id).where(tenants.c.id == tenant_id)
    await session.execute(statement.with_for_update(read=True, key_share=True))


class SqlRoleRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id

    async def get(self, name: RoleName) -> Role:
        statement = select(Role).where(roles.c.tenant_id == self._tenant_id, roles.c.name == name)
        # Whoever is being given the role meanwhile need not wait: its name stays.
        role = await self._session.scalar(statement.with_for_update(key_share=True))
        if role is None:
            raise RoleNotFoundError
        return role

    async def list_named(self, names: Collection[RoleName]) -> list[Role]:
        if not names:
            return []
        await share_tenant(self._session, self._tenant_id)
        # The guarded roles never change, and whoever changes access locks them for something else.
        guarded = {name for name in names if str(name) in GUARDED_ROLES}
        found = await self._list_locked(guarded, key_share=True)
        found += await self._list_locked(set(names) - guarded, key_share=False)
        if len(found) < len(set(names)):
            raise RoleNotFoundError
        return found

    async def _list_locked(self, names: Collection[RoleName], *, key_share: bool) -> list[Role]:
        if not names:
            return []
        statement = (
            select(Role)
            .where(roles.c.tenant_id == self._tenant_id, roles.c.name.in_(names))
            .order_by(roles.c.name)
            .with_for_update(read=True, key_share=key_share)
            .execution_options(populate_existing=True)
        )
        return list(await self._session.scalars(statement))

    async def is_held(self, name: RoleName) -> bool:
        held = exists().where(
            membership_roles.c.tenant_id == self._tenant_id, membership_roles.c.role_name == name
        )
        by_program = exists().where(
            service_account_roles.c.tenant_id == self._tenant_id,
            service_account_roles.c.role_name == name,
        )
        return bool(await self._session.scalar(select(held | by_program)))

    async def list_held(self, holder: AccountId) -> frozenset[RoleName]:
        by_person, by_program = membership_roles.c, service_account_roles.c
        held = select(by_person.role_name).where(
            by_person.tenant_id == self._tenant_id, by_person.account_id == holder
        )
        programs = select(by_program.role_name).where(
            by_program.tenant_id == self._tenant_id, by_program.service_account_id == holder
        )
        return frozenset(await self._session.scalars(held.union_all(programs)))

    def add(self, role: Role) -> None:
        self._session.add(role)

    async def remove(self, role: Role) -> None:
        await self._session.delete(role)


class SqlMembershipRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id

    async def find(self, account_id: AccountId) -> Membership | None:
        statement = (
            select(Membership)
            .where(
                memberships.c.tenant_id == self._tenant_id, memberships.c.account_id == account_id
            )
            .options(selectinload(Membership.grants))  # type: ignore[arg-type, misc]  # mapped imperatively
            .with_for_update()
        )
        membership: Membership | None = await self._session.scalar(statement)
        return membership

    async def count_active(self, roles: Collection[str], *, besides: AccountId) -> dict[str, int]:
        # What this transaction did to others before counts as well.
        await self._session.flush()
        held, member, account = membership_roles.c, memberships.c, accounts.c
        statement: Select[Any] = (
            select(held.role_name, func.count())
            .join(
                memberships,
                (member.tenant_id == held.tenant_id) & (member.account_id == held.account_id),
            )
            .join(accounts, account.id == held.account_id)
            .where(
                held.tenant_id == self._tenant_id,
                held.role_name.in_([RoleName(role) for role in roles]),
                held.account_id != besides,
                member.status == "active",
                account.status == "active",
            )
            .group_by(held.role_name)
        )
        return {str(name): count for name, count in await self._session.execute(statement)}

    def add(self, membership: Membership) -> None:
        self._session.add(membership)

    async def remove(self, membership: Membership) -> None:
        await self._session.delete(membership)
        await self._session.flush()


class SqlTenantRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, tenant_id: TenantId) -> Tenant:
        # Whoever adds a row of the tenant only looks at its key, and may hold what waits for this.
        tenant = await self._session.get(Tenant, tenant_id, with_for_update={"key_share": True})
        if tenant is None or tenant.status == "deleted":
            raise TenantNotFoundError
        return tenant

    async def is_slug_taken(self, slug: Slug) -> bool:
        return bool(await self._session.scalar(select(exists().where(tenants.c.slug == slug))))

    def add(self, tenant: Tenant) -> None:
        self._session.add(tenant)


class SqlSessionReach:
    """Changes sessions by the set: there may be many, and a request waits."""

    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id

    async def end(
        self, account_id: AccountId, reason: RevocationReason, *, at: datetime, everywhere: bool
    ) -> SessionEffects:
        statement = _ending(reason, at).where(sessions.c.account_id == account_id)
        if everywhere:
            keys = await refresh_keys_everywhere(self._session, account_id)
        else:
            statement = statement.where(sessions.c.tenant_id == self._tenant_id)
            keys = await self._refresh_keys(api_keys.c.account_id == account_id)
        return SessionEffects(ended=await self._marks(statement), stale_keys=keys)

    async def refresh_account(self, account_id: AccountId) -> SessionEffects:
        statement = _refreshing().where(
            sessions.c.account_id == account_id, sessions.c.tenant_id == self._tenant_id
        )
        keys = await self._refresh_keys(api_keys.c.account_id == account_id)
        return SessionEffects(stale=await self._marks(statement), stale_keys=keys)

    async def refresh_holders(self, role: RoleName) -> SessionEffects:
        holders = select(membership_roles.c.account_id).where(
            membership_roles.c.tenant_id == self._tenant_id, membership_roles.c.role_name == role
        )
        statement = _refreshing().where(
            sessions.c.tenant_id == self._tenant_id, sessions.c.account_id.in_(holders)
        )
        programs = select(service_account_roles.c.service_account_id).where(
            service_account_roles.c.tenant_id == self._tenant_id,
            service_account_roles.c.role_name == role,
        )
        keys = await self._refresh_keys(
            api_keys.c.account_id.in_(holders) | api_keys.c.service_account_id.in_(programs)
        )
        return SessionEffects(stale=await self._marks(statement), stale_keys=keys)

    async def end_tenant(self, tenant_id: TenantId, *, at: datetime) -> SessionEffects:
        statement = _ending("tenant-closed", at).where(sessions.c.tenant_id == tenant_id)
        keys = await refresh_keys_of_tenant(self._session, tenant_id)
        return SessionEffects(ended=await self._marks(statement), stale_keys=keys)

    async def _refresh_keys(self, which: ColumnElement[Any]) -> list[KeyMark]:
        return await refresh_keys(self._session, api_keys.c.tenant_id == self._tenant_id, which)

    async def _marks(self, statement: Update) -> list[SessionMark]:
        rows = await self._session.execute(
            statement.where(sessions.c.revoked_at.is_(None)).returning(
                sessions.c.id, sessions.c.version
            )
        )
        return [SessionMark(row.id, row.version) for row in rows]


def _refreshing() -> Update:
    return update(sessions).values(version=sessions.c.version + 1)


def _ending(reason: RevocationReason, at: datetime) -> Update:
    return _refreshing().values(revoked_at=at, revoked_reason=reason)


class SqlAdminUnitOfWork(SqlUnitOfWork):
    accounts: SqlAccountRepository
    memberships: SqlMembershipRepository
    roles: SqlRoleRepository
    tenants: SqlTenantRepository
    sessions: SqlSessionReach
    _acting_in: TenantId | None = None

    @override
    def _open(self) -> None:
        self.accounts = SqlAccountRepository(self.session)
        self.tenants = SqlTenantRepository(self.session)
        self.memberships = SqlMembershipRepository(self.session, self._acting_in)
        self.roles = SqlRoleRepository(self.session, self._acting_in)
        self.sessions = SqlSessionReach(self.session, self._acting_in)

    @override
    async def act_in(self, tenant_id: TenantId) -> None:
        """Turn to another tenant; what was changed in the one before is written there first."""
        await self._flush()
        await super().act_in(tenant_id)
        self._acting_in = tenant_id
        self._open()

    async def lock_guarded_roles(self) -> None:
        await share_tenant(self.session, self._acting_in)
        # Not a full lock, which would make every grant of the role elsewhere wait as well.
        await self.session.execute(
            select(roles.c.name)
            .where(
                roles.c.tenant_id == self._acting_in,
                roles.c.name.in_([RoleName(name) for name in sorted(GUARDED_ROLES)]),
            )
            .order_by(roles.c.name)
            .with_for_update(key_share=True)
        )

    async def lock_tenant(self, tenant_id: TenantId) -> None:
        # A new session's foreign key shares the tenant's row; only a full lock excludes that.
        await self.session.execute(
            select(tenants.c.id).where(tenants.c.id == tenant_id).with_for_update()
        )

    async def is_member_elsewhere(self, account_id: AccountId) -> bool:
        return bool(await self.session.scalar(select(func.is_member_elsewhere(account_id))))

    async def list_places(self, account_id: AccountId) -> list[TenantId]:
        rows = await self.session.execute(
            text("SELECT tenant_id FROM memberships_of(:account)"), {"account": account_id}
        )
        return [TenantId(row.tenant_id) for row in rows]

    async def revoke_keys(self, account_id: AccountId) -> list[KeyMark]:
        return await revoke_keys_everywhere(self.session, account_id)

    async def list_rights(self, account_id: AccountId) -> frozenset[str]:
        found: Sequence[str] = (
            await self.session.execute(
                text("SELECT account_rights(:account)"), {"account": account_id}
            )
        ).scalar_one()
        return frozenset(found)

    async def forget(self, account_id: AccountId) -> bool:
        await self._flush()
        account = await self.session.get(Account, account_id)
        if account is not None:
            self.session.expunge(account)
            await self.session.execute(_WITHDRAW, {"email": account.email.value})
        return bool(await self.session.scalar(select(func.forget_account(account_id))))

    @override
    async def commit(self, result: object = None) -> None:
        try:
            await super().commit(result)
        except IntegrityError as exc:
            raise _explain(exc) from exc

    async def _flush(self) -> None:
        try:
            await self.session.flush()
        except IntegrityError as exc:
            raise _explain(exc) from exc


def _explain(exc: IntegrityError) -> Exception:
    """Turn the constraints that a race can hit into what they mean."""
    message = str(exc.orig)
    for constraint, error in _TAKEN.items():
        if constraint in message:
            return error()
    return exc
