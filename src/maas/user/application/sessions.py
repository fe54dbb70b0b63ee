"""One's own sessions: in which tenants, from where, and how to end them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from maas.audit.public import current_scope
from maas.shared.application.ports import InvalidTokenError
from maas.shared.domain.call import current_call
from maas.shared.domain.clock import Clock
from maas.shared.domain.errors import NotFoundError, PermissionDeniedError
from maas.shared.domain.ids import AccountId, SessionId, TenantId
from maas.shared.domain.page import Page, PageRequest
from maas.shared.domain.principal import Principal
from maas.user.application.admin_ports import SessionEffects, SessionMarks, marks_of
from maas.user.application.errors import NoMembershipError
from maas.user.application.ports import SessionCache, TenantChoice, UserUnitOfWork
from maas.user.application.token_pairs import SessionOpener, TokenPair
from maas.user.application.trail import ACCOUNT, SESSION
from maas.user.domain.session import Session


class SessionNotFoundError(NotFoundError):
    """Ended already, or not one's own."""

    code = "session-not-found"
    title = "No such session"


class SessionRequiredError(PermissionDeniedError):
    """An API key calls what only a signed-in person may do."""

    code = "session-required"
    title = "Sign in to do this"

    def __init__(self) -> None:
        super().__init__(
            "An API key belongs to no session: sign in for this. A key ends by "
            "`DELETE /api/v1/users/api-keys/{id}`."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDetails:
    """A live session; `last_used_at` is when its tokens were last refreshed."""

    id: SessionId
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    address: str | None
    user_agent: str | None
    tenant_id: TenantId
    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantDetails:
    """A tenant one may act in."""

    id: TenantId
    slug: str
    name: str
    created_at: datetime


class SessionQueries(Protocol):
    async def list_live(
        self, account_id: AccountId, *, at: datetime, page: PageRequest
    ) -> Page[SessionDetails]:
        """List the account's live sessions in all tenants, newest first."""
        ...

    async def list_tenants(
        self, account_id: AccountId, *, page: PageRequest
    ) -> Page[TenantDetails]:
        """List the active tenants the account is an active member of, newest first."""
        ...

    async def find_tenant(self, account_id: AccountId, slug: str) -> TenantChoice | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionService:
    unit_of_work: Callable[[], UserUnitOfWork]
    queries: SessionQueries
    opener: SessionOpener
    cache: SessionCache
    marks: SessionMarks
    clock: Clock

    async def list_own(self, principal: Principal, page: PageRequest) -> Page[SessionDetails]:
        return await self.queries.list_live(principal.account_id, at=self.clock.now(), page=page)

    async def switch_tenant(self, principal: Principal, slug: str) -> TokenPair:
        """Open a session of the same person in another of their tenants; this one stays.

        The new session ends no later than this one would, so that switching back and forth never
        outlives the password that was given at sign-in.

        Raises:
            NoMembershipError: no such active tenant of theirs.
            SessionRequiredError: an API key calls.
            InvalidTokenError: this session has ended meanwhile.
        """
        if principal.session_id is None:
            raise SessionRequiredError
        choice = await self.queries.find_tenant(principal.account_id, slug)
        if choice is None:
            raise NoMembershipError
        now = self.clock.now()
        current_call().tenant_id = current_scope().tenant_id = choice.id
        async with self.unit_of_work() as uow:
            # The account is locked first, as whoever ends all its sessions does.
            account = await uow.accounts.get(principal.account_id)
            current = await uow.sessions.find_locked(principal.session_id)
            if account.status != "active" or current is None or not current.is_live(now):
                raise InvalidTokenError
            session = self.opener.open(account.id, choice.id, at=now, ends_by=current.expires_at)
            if account.last_tenant_id != choice.id:
                account.sign_in_to(choice.id)
            uow.sessions.add(session)
            if not await uow.may_act(session):
                # Taken out of the tenant, or the tenant closed, since it was looked up.
                raise NoMembershipError
            current_scope().resource(SESSION, session.id)
            await uow.commit()
        return self.opener.pair(session, at=now)

    async def end_own(self, principal: Principal, session_id: SessionId) -> None:
        """End one of the caller's sessions, be it this one.

        Raises:
            SessionNotFoundError: somebody else's, ended or never there.
        """
        now = self.clock.now()
        async with self.unit_of_work() as uow:
            session = await uow.sessions.find_locked(session_id)
            is_theirs = session is not None and session.account_id == principal.account_id
            if session is None or not is_theirs or not session.is_live(now):
                raise SessionNotFoundError
            session.revoke("ended-by-owner", at=now)
            current_scope().change(SESSION, session.id, after={"revoked_reason": "ended-by-owner"})
            await uow.commit()
        await self.cache.revoke(session.id, version=session.version)

    async def end_all_own(self, principal: Principal, *, revoke_api_keys: bool) -> None:
        """End every session of the caller, in all tenants, this one included.

        API keys end with them if that is asked for.
        """
        now = self.clock.now()
        async with self.unit_of_work() as uow:
            await uow.accounts.get(principal.account_id)
            # Keys before sessions, as whoever narrows a role takes them.
            keys = await uow.revoke_keys(principal.account_id) if revoke_api_keys else []
            sessions = await uow.sessions.list_live(principal.account_id, at=now)
            for session in sessions:
                session.revoke("logout-all", at=now)
            current_scope().change(
                ACCOUNT,
                principal.account_id,
                after={"sessions_ended": len(sessions), "api_keys_revoked": len(keys)},
            )
            await uow.commit()
        await self.marks.announce(SessionEffects(ended=marks_of(sessions), stale_keys=keys))


def versions_of(sessions: list[Session]) -> dict[SessionId, int]:
    """Say which version each session has now: what its tombstone must name."""
    return {session.id: session.version for session in sessions}
