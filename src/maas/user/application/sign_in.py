"""Signing in, staying signed in, and signing out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from maas.audit.public import Actor, current_scope
from maas.shared.domain.call import current_call
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import DEFAULT_TENANT_ID, SessionId
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
from maas.user.application.sessions import SessionRequiredError, versions_of
from maas.user.application.throttle import AttemptOutcome, LoginThrottle
from maas.user.application.token_pairs import SessionOpener, TokenPair
from maas.user.application.trail import SESSION
from maas.user.application.turns import SessionTurns
from maas.user.domain.session import RotationVerdict, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInService:
    unit_of_work: Callable[[], UserUnitOfWork]
    queries: UserQueries
    passwords: PasswordHasher
    tokens: TokenIssuer
    opener: SessionOpener
    throttle: LoginThrottle
    cache: SessionCache
    clock: Clock
    turns: SessionTurns = field(default_factory=SessionTurns)

    async def sign_in(self, *, login: str, password: str, tenant: str | None) -> TokenPair:
        """Exchange credentials for tokens; takes as long for an unknown name as for a known one.

        Raises:
            InvalidCredentialsError: unknown name, wrong password or inactive account.
            NoMembershipError: the right password, but no such tenant of theirs.
            HashingBusyError: too many others are signing in.
            TooManyLoginsError: too soon after a failure; `retry_after` says how long to wait.
        """
        scope = current_scope()
        scope.actor = Actor("anonymous", None)
        scope.tenant_id = DEFAULT_TENANT_ID
        candidate = await self.queries.find_sign_in(login, current_call().address)
        if candidate is not None:
            # A name that nobody has may be a password in the wrong field: it is not kept.
            scope.actor = Actor("anonymous", None, name=candidate.username)
        if not await self._is_right(candidate, login, password) or candidate is None:
            raise InvalidCredentialsError
        choice = _choose_tenant(candidate, tenant)
        scope.actor = Actor("account", candidate.account_id, name=candidate.username)
        scope.tenant_id = choice.id
        rehashed = None
        if self.passwords.is_outdated(candidate.password_hash):
            rehashed = await self.passwords.hash(password)
        return await self._open_session(candidate, choice, rehashed=rehashed)

    async def _is_right(self, candidate: SignInCandidate | None, login: str, password: str) -> bool:
        """Compare the password, if it is not too soon; nobody's password takes as long."""
        attempt = await self.throttle.admit(
            login=login,
            address=current_call().address,
            account_id=candidate.account_id if candidate else None,
            is_known=candidate is not None and candidate.is_known_address,
        )
        outcome: AttemptOutcome = "unknown"
        try:
            compared = None if candidate is None or attempt.is_decoy else candidate.password_hash
            is_right = await self.passwords.verify(password, compared)
            is_right = is_right and candidate is not None and candidate.is_active
            outcome = "right" if is_right else "failed"
        finally:
            await self.throttle.settle(attempt, outcome)
        return is_right

    async def _open_session(
        self, candidate: SignInCandidate, choice: TenantChoice, *, rehashed: str | None
    ) -> TokenPair:
        call, now = current_call(), self.clock.now()
        call.tenant_id = choice.id
        session = self.opener.open(candidate.account_id, choice.id, at=now)
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
            if not await uow.may_act(session):
                # Taken out of the tenant, or the tenant closed, since the names were looked up.
                raise NoMembershipError
            await uow.commit()
        return self.opener.pair(session, at=now)

    async def refresh(self, refresh_token: str) -> TokenPair:
        """Exchange a refresh token for the next pair.

        The token replaced within the last ten seconds brings the same successor again, so that an
        answer lost on the way, or twenty tabs at once, do not end the session.

        Raises:
            InvalidRefreshTokenError: unknown, expired or revoked.
            RefreshTokenReusedError: an older one; the session and its kin have been ended.
        """
        scope, now = current_scope(), self.clock.now()
        scope.tenant_id = DEFAULT_TENANT_ID
        session_id = self.tokens.session_of_refresh(refresh_token)
        if session_id is None:
            raise InvalidRefreshTokenError
        async with self.turns.turn(session_id):
            session, verdict = await self._use(refresh_token, session_id, at=now)
            if verdict == "reused":
                await self._end_family(session, at=now)
                raise RefreshTokenReusedError
        return self.opener.pair(session, at=now)

    async def _use(
        self, refresh_token: str, session_id: SessionId, *, at: datetime
    ) -> tuple[Session, RotationVerdict]:
        scope = current_scope()
        async with self.unit_of_work() as uow:
            session = await uow.sessions.find_locked(session_id)
            if session is None:
                raise InvalidRefreshTokenError
            scope.actor = Actor("account", session.account_id)
            scope.tenant_id = session.tenant_id
            scope.resource(SESSION, session.id)
            verdict = session.judge(self.tokens.hash_refresh(refresh_token), at=at)
            if verdict == "ended":
                raise InvalidRefreshTokenError
            if verdict == "rotate":
                successor = self.tokens.issue_refresh(session.id, session.generation + 1)
                session.rotate(
                    self.tokens.hash_refresh(successor), at=at, idle=self.opener.refresh_idle
                )
            if verdict != "reused":
                await uow.commit()
        return session, verdict

    async def _end_family(self, stolen: Session, *, at: datetime) -> None:
        """End the session and those opened with it: a thief may have switched tenants meanwhile."""
        async with self.unit_of_work() as uow:
            # The account is locked first, as whoever ends all its sessions does.
            await uow.accounts.get(stolen.account_id)
            live = await uow.sessions.list_live(stolen.account_id, at=at)
            family = [session for session in live if session.is_kin_of(stolen)]
            for session in family:
                session.revoke("token-reused", at=at)
            current_scope().fail("refresh-token-reused", action="session.reuse_detected")
            await uow.commit()
        await self.cache.revoke_all(versions_of(family))

    async def sign_out(self, principal: Principal) -> None:
        """End the caller's session; no request that starts after this returns is accepted.

        Raises:
            SessionRequiredError: an API key calls, which this would not end.
        """
        if principal.session_id is None:
            raise SessionRequiredError
        now = self.clock.now()
        async with self.unit_of_work() as uow:
            session = await uow.sessions.find_locked(principal.session_id)
            if session is None:
                return
            session.revoke("logout", at=now)
            current_scope().change(SESSION, session.id, after={"revoked_reason": "logout"})
            await uow.commit()
        await self.cache.revoke(session.id, version=session.version)


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
