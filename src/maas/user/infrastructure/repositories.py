"""Loading and keeping the aggregates of identity, and the transaction they share."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from maas.shared.domain.ids import AccountId, SessionId, TenantId
from maas.shared.infrastructure.constraints import constraint_of
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork
from maas.user.application.errors import AccountNotFoundError, EmailTakenError, UsernameTakenError
from maas.user.application.ports import KeyMark
from maas.user.domain.account import Account
from maas.user.domain.role import RoleName
from maas.user.domain.session import Session
from maas.user.infrastructure.key_marks import revoke_keys_everywhere
from maas.user.infrastructure.sign_in_tables import link_tokens
from maas.user.infrastructure.tables import (
    bootstrap_marks,
    membership_roles,
    memberships,
    sessions,
)

FIRST_ADMIN_MARK = "first-admin"

_IS_LET_IN = text("SELECT 1 FROM tenants_of(:account) t WHERE t.id = :tenant")


class SqlAccountRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, account_id: AccountId) -> Account:
        account = await self._session.get(Account, account_id, with_for_update=True)
        if account is None:
            raise AccountNotFoundError
        return account

    def add(self, account: Account) -> None:
        self._session.add(account)

    async def drop_reset_links(self, account_id: AccountId) -> None:
        await self._session.execute(
            delete(link_tokens).where(
                link_tokens.c.account_id == account_id, link_tokens.c.purpose == "reset-password"
            )
        )


class SqlSessionRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find_locked(self, session_id: SessionId) -> Session | None:
        return await self._session.get(Session, session_id, with_for_update=True)

    async def list_live(self, account_id: AccountId, *, at: datetime) -> list[Session]:
        statement = (
            select(Session)
            .where(
                sessions.c.account_id == account_id,
                sessions.c.revoked_at.is_(None),
                sessions.c.expires_at > at,
            )
            .with_for_update()
        )
        return list(await self._session.scalars(statement))

    def add(self, session: Session) -> None:
        self._session.add(session)


class SqlUserUnitOfWork(SqlUnitOfWork):
    accounts: SqlAccountRepository
    sessions: SqlSessionRepository

    @override
    def _open(self) -> None:
        self.accounts = SqlAccountRepository(self.session)
        self.sessions = SqlSessionRepository(self.session)

    async def add_membership(
        self, account_id: AccountId, tenant_id: TenantId, *, roles: Sequence[str], at: datetime
    ) -> None:
        await self._flush()
        key = {"tenant_id": tenant_id, "account_id": account_id}
        await self.session.execute(insert(memberships).values(**key, created_at=at))
        await self.session.execute(
            insert(membership_roles), [{**key, "role_name": RoleName(role)} for role in roles]
        )

    async def may_act(self, session: Session) -> bool:
        # Writing the row waits for whoever is closing the tenant; the account is locked already.
        await self._flush()
        key = {"account": session.account_id, "tenant": session.tenant_id}
        return (await self.session.execute(_IS_LET_IN, key)).first() is not None

    async def revoke_keys(self, account_id: AccountId) -> list[KeyMark]:
        return await revoke_keys_everywhere(self.session, account_id)

    async def mark_bootstrapped(self, *, at: datetime) -> bool:
        statement = (
            upsert(bootstrap_marks)
            .values(name=FIRST_ADMIN_MARK, made_at=at)
            .on_conflict_do_nothing()
            .returning(bootstrap_marks.c.name)
        )
        return (await self.session.execute(statement)).first() is not None

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
    """Turn the two constraints that a race can hit into what they mean."""
    match constraint_of(exc):
        case "uq_accounts_username_key":
            return UsernameTakenError()
        case "uq_accounts_email_key":
            return EmailTakenError()
        case _:
            return exc
