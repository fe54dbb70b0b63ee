"""Opening sessions: the row that is kept, and the pair of tokens that is given out for it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NewType

from maas.shared.domain.call import current_call
from maas.shared.domain.ids import AccountId, SessionId, TenantId, new_id
from maas.user.application.ports import TokenIssuer
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
class SessionOpener:
    """Makes sessions for the call being served: its address and user agent go with them."""

    tokens: TokenIssuer
    access_lifetime: timedelta
    refresh_lifetime: timedelta
    refresh_idle: timedelta

    def open(
        self,
        account_id: AccountId,
        tenant_id: TenantId,
        *,
        at: datetime,
        ends_by: datetime | None = None,
    ) -> Session:
        """Make a session that has yet to be kept.

        With `ends_by` it belongs to the family that ends then, whatever the lifetime is now.
        """
        call = current_call()
        session_id = SessionId(new_id())
        return Session(
            id=session_id,
            account_id=account_id,
            tenant_id=tenant_id,
            version=1,
            generation=1,
            current_hash=self.tokens.hash_refresh(self.tokens.issue_refresh(session_id, 1)),
            previous_hash=None,
            rotated_at=at,
            created_at=at,
            last_used_at=at,
            expires_at=at + self.refresh_lifetime if ends_by is None else ends_by,
            idle_expires_at=at + self.refresh_idle,
            revoked_at=None,
            revoked_reason=None,
            address=call.address,
            user_agent=(call.user_agent or "")[:MAX_USER_AGENT_CHARS] or None,
        )

    def pair(self, session: Session, *, at: datetime) -> TokenPair:
        """Give out the tokens of the session's current generation: the same refresh token again."""
        refresh_token = self.tokens.repeat_refresh(
            session.id, session.generation, token_hash=session.current_hash
        )
        return TokenPair(
            access_token=AccessToken(self.tokens.issue_access(session, at=at)),
            refresh_token=RefreshToken(refresh_token),
            expires_in=self.access_lifetime,
        )
