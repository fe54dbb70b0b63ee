"""A signed-in session: one per sign-in, kept alive by rotating refresh tokens."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from maas.shared.domain.ids import AccountId, SessionId, TenantId

RevocationReason: TypeAlias = Literal[
    "logout",
    "logout-all",
    "deactivated",
    "ended-by-owner",
    "password-changed",
    "password-reset",
    "removed",
    "restored",
    "suspended",
    "tenant-closed",
    "token-reused",
]

REFRESH_GRACE = timedelta(seconds=10)
"""How long the token just replaced still brings the same successor, for answers that got lost."""

RotationVerdict: TypeAlias = Literal["rotate", "repeat", "reused", "ended"]


@dataclass(eq=False, kw_only=True)
class Session:
    """Holds the hashes of its current and previous refresh token, never a token.

    `generation` counts rotations and derives the next token; `version` counts the changes a reader
    of cached session state must notice.
    """

    id: SessionId
    account_id: AccountId
    tenant_id: TenantId
    version: int
    generation: int
    current_hash: bytes
    previous_hash: bytes | None
    rotated_at: datetime
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    idle_expires_at: datetime
    revoked_at: datetime | None
    revoked_reason: RevocationReason | None
    address: str | None
    user_agent: str | None

    def is_live(self, at: datetime) -> bool:
        return self.revoked_at is None and at < self.expires_at and at < self.idle_expires_at

    def is_kin_of(self, other: "Session") -> bool:
        """Tell whether both stem from one sign-in: switching tenants hands its end on."""
        return self.account_id == other.account_id and self.expires_at == other.expires_at

    def judge(self, token_hash: bytes, *, at: datetime) -> RotationVerdict:
        """Say what presenting this refresh token means, without changing anything.

        `repeat`: the token replaced within the grace time; its successor is given again.
        `reused`: an older token, so somebody else holds the family too.
        """
        if not self.is_live(at):
            return "ended"
        if token_hash == self.current_hash:
            return "rotate"
        if token_hash == self.previous_hash and at <= self.rotated_at + REFRESH_GRACE:
            return "repeat"
        return "reused"

    def rotate(self, successor_hash: bytes, *, at: datetime, idle: timedelta) -> None:
        self.previous_hash = self.current_hash
        self.current_hash = successor_hash
        self.generation += 1
        self.rotated_at = at
        self.last_used_at = at
        self.idle_expires_at = at + idle

    def revoke(self, reason: RevocationReason, *, at: datetime) -> None:
        """End the session; ending an ended one changes nothing."""
        if self.revoked_at is not None:
            return
        self.revoked_at = at
        self.revoked_reason = reason
        self.version += 1
