"""Signing in, staying signed in, and signing out."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NewType

from maas.audit.public import Actor, current_scope
from maas.shared.domain.call import current_call
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import DEFAULT_TENANT_ID, SessionId, new_id
from maas.shared.domain.principal import Principal
from maas.user.application.errors import (
    InvalidCredentialsError,
    InvalidRefreshTokenError,
    NoMembershipError,
    RefreshTokenReusedError,
)
from maas.user.application.ports import (
    PasswordHasher,
    SessionCache,
    SignInCandidate,
    TenantChoice,
    TokenIssuer,
    UserQueries,
    UserUnitOfWork,
)
from maas.user.application.trail import SESSION
from maas.user.domain.session import Session

AccessToken = NewType("AccessToken", str)
RefreshToken = NewType("RefreshToken", str)

MAX_USER_AGENT_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPair:
    access_token: AccessToken
    refresh_token: RefreshToken
    expires_in: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInService:
    unit_of_work: Callable[[], UserUnitOfWork]
    queries: UserQueries
    passwords: PasswordHasher
    tokens: TokenIssuer
    cache: SessionCache
    clock: Clock
    access_lifetime: timedelta
    refresh_lifetime: timedelta
    refresh_idle: timedelta

    async def sign_in(self, *, login: str, password: str, tenant: str | None) -> TokenPair:
        """Exchange credentials for tokens; takes as long for an unknown name as for a known one.

        Raises:
            InvalidCredentialsError: unknown name, wrong password or inactive account.
            NoMembershipError: the right password, but no such tenant of theirs.
            HashingBusyError: too many others are signing in.
        """
        scope = current_scope()
        scope.actor = Actor("anonymous", None, name=login[:MAX_USER_AGENT_CHARS])
        scope.tenant_id = DEFAULT_TENANT_ID
        candidate = await self.queries.find_sign_in(login)
        is_right = await self.passwords.verify(
            password, candidate.password_hash if candidate else None
        )
        if candidate is None or not is_right or not candidate.is_active:
            raise InvalidCredentialsError
        choice = _choose_tenant(candidate, tenant)
        scope.actor = Actor("account", candidate.account_id, name=candidate.username)
        scope.tenant_id = choice.id
        rehashed = None
        if self.passwords.is_outdated(candidate.password_hash):
            rehashed = await self.passwords.hash(password)
        return await self._open_session(candidate, choice, rehashed=rehashed)

    async def _open_session(
        self, candidate: SignInCandidate, choice: TenantChoice, *, rehashed: str | None
    ) -> TokenPair:
        call, now = current_call(), self.clock.now()
        call.tenant_id = choice.id
        session_id = SessionId(new_id())
        refresh_token = self.tokens.issue_refresh(session_id, 1)
        session = Session(
            id=session_id,
            account_id=candidate.account_id,
            tenant_id=choice.id,
            version=1,
            generation=1,
            current_hash=self.tokens.hash_refresh(refresh_token),
            previous_hash=None,
            rotated_at=now,
            created_at=now,
            last_used_at=now,
            expires_at=now + self.refresh_lifetime,
            idle_expires_at=now + self.refresh_idle,
            revoked_at=None,
            revoked_reason=None,
            address=call.address,
            user_agent=(call.user_agent or "")[:MAX_USER_AGENT_CHARS] or None,
        )
        current_scope().resource(SESSION, session.id)
        async with self.unit_of_work() as uow:
            account = await uow.accounts.get(candidate.account_id)
            if account.status != "active" or account.password_hash != candidate.password_hash:
                # Suspended, or the password changed, while it was being verified.
                raise InvalidCredentialsError
            if rehashed is not None:
                account.rehash_password(rehashed)
            if account.last_tenant_id != choice.id:
                account.sign_in_to(choice.id)
            uow.sessions.add(session)
            await uow.commit()
        return self._pair(session, refresh_token, at=now)

    async def refresh(self, refresh_token: str) -> TokenPair:
        """Exchange a refresh token for the next pair.

        The token replaced within the last ten seconds brings the same successor again, so that an
        answer lost on the way, or twenty tabs at once, do not end the session.

        Raises:
            InvalidRefreshTokenError: unknown, expired or revoked.
            RefreshTokenReusedError: an older one; the session has been ended.
        """
        scope, now = current_scope(), self.clock.now()
        scope.tenant_id = DEFAULT_TENANT_ID
        session_id = self.tokens.session_of_refresh(refresh_token)
        if session_id is None:
            raise InvalidRefreshTokenError
        async with self.unit_of_work() as uow:
            session = await uow.sessions.find_locked(session_id)
            if session is None:
                raise InvalidRefreshTokenError
            scope.actor = Actor("account", session.account_id)
            scope.tenant_id = session.tenant_id
            scope.resource(SESSION, session.id)
            verdict = session.judge(self.tokens.hash_refresh(refresh_token), at=now)
            if verdict == "ended":
                raise InvalidRefreshTokenError
            if verdict == "reused":
                session.revoke("token-reused", at=now)
                scope.fail("refresh-token-reused", action="session.reuse_detected")
            elif verdict == "rotate":
                successor = self.tokens.issue_refresh(session.id, session.generation + 1)
                session.rotate(self.tokens.hash_refresh(successor), at=now, idle=self.refresh_idle)
            await uow.commit()
        if verdict == "reused":
            await self.cache.revoke(session.id, version=session.version)
            raise RefreshTokenReusedError
        newest = self.tokens.repeat_refresh(
            session.id, session.generation, token_hash=session.current_hash
        )
        return self._pair(session, newest, at=now)

    async def sign_out(self, principal: Principal) -> None:
        """End the caller's session; no request that starts after this returns is accepted."""
        if principal.session_id is None:
            return
        now = self.clock.now()
        async with self.unit_of_work() as uow:
            session = await uow.sessions.find_locked(principal.session_id)
            if session is None:
                return
            session.revoke("logout", at=now)
            current_scope().change(SESSION, session.id, after={"revoked_reason": "logout"})
            await uow.commit()
        await self.cache.revoke(session.id, version=session.version)

    def _pair(self, session: Session, refresh_token: str, *, at: datetime) -> TokenPair:
        return TokenPair(
            access_token=AccessToken(self.tokens.issue_access(session, at=at)),
            refresh_token=RefreshToken(refresh_token),
            expires_in=self.access_lifetime,
        )


def _choose_tenant(candidate: SignInCandidate, wanted: str | None) -> TenantChoice:
    """Pick the tenant asked for, else the last used, else the only one, else `default`."""
    if wanted is not None:
        chosen = next((choice for choice in candidate.tenants if choice.slug == wanted), None)
    elif len(candidate.tenants) == 1:
        chosen = candidate.tenants[0]
    else:
        by_id = {choice.id: choice for choice in candidate.tenants}
        last_used = by_id.get(candidate.last_tenant_id) if candidate.last_tenant_id else None
        chosen = last_used or by_id.get(DEFAULT_TENANT_ID)
    if chosen is None:
        raise NoMembershipError
    return chosen
