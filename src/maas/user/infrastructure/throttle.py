"""Counters of failed sign-ins, in PostgreSQL: one store, so that no outage gives a second count.

A guess is counted as under way before the password is compared, so that a thousand at once are
held as a thousand in a row would be. Names and addresses are hashed into the keys.
"""

import asyncio
import hashlib
import ipaddress
import time
from datetime import timedelta
from typing import Final

from typing_extensions import override

from maas.shared.domain.ids import AccountId
from maas.shared.infrastructure.database import Database
from maas.user.application.throttle import (
    AttemptOutcome,
    LoginAttempt,
    LoginThrottle,
    TooManyLoginsError,
)
from maas.user.domain.throttle import BURST, FREE_FAILURES, LEASE, MEMORY, WaitPolicy

ADDRESS_BURST: Final = 50
"""People behind one address may sign in for the first time together."""

BUSY_LIMIT_SECONDS: Final = 2.0
BUSY_POLL_SECONDS: Final = 0.05
LONGEST_POLL_SECONDS: Final = 0.2
CONNECTIONS: Final = 3
"""Of the pool of hot reads: a flood of guesses must leave room for everybody else's requests."""

IPV6_SITE_BITS: Final = 64

_BEGIN: Final = """
SELECT verdict, wait FROM begin_login_guess($1, $2, $3, $4, $5, $6, clock_timestamp())
"""
_SETTLE: Final = "SELECT settle_login_guess($1, $2, $3, $4, $5, clock_timestamp())"


def site_of(address: str | None) -> str | None:
    """Tell what counts as one address: an IPv4 one itself, an IPv6 one's /64."""
    if address is None:
        return None
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:  # noqa: PLR2004  IPv4
        return f"{parsed}/32"
    return str(ipaddress.ip_network((parsed, IPV6_SITE_BITS), strict=False))


def _key(kind: str, value: str) -> str:
    digest = hashlib.sha256(f"{kind}:{value}".encode()).hexdigest()[:32]
    return f"{kind}:{digest}"


class GuardedLoginThrottle:
    """The `LoginThrottle` port."""

    def __init__(self, database: Database, *, policy: WaitPolicy) -> None:
        self._database = database
        self._policy = policy
        self._turns = asyncio.Semaphore(CONNECTIONS)

    async def admit(
        self, *, login: str, address: str | None, account_id: AccountId | None, is_known: bool
    ) -> LoginAttempt:
        site = site_of(address) or "none"
        hidden = None
        if is_known and account_id is not None:
            bursts = {_key("pair", f"{account_id}@{site}"): BURST}
        else:
            bursts = {_key("login", login.lower()): BURST, _key("address", site): ADDRESS_BURST}
            if account_id is not None:
                hidden = _key("account", str(account_id))
        give_up, pause = time.monotonic() + BUSY_LIMIT_SECONDS, BUSY_POLL_SECONDS
        while True:
            verdict, wait = await self._ask(bursts, hidden)
            if verdict != "busy" or time.monotonic() > give_up:
                break
            # Others are at it this moment; theirs may well be the right password.
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_POLL_SECONDS)
        if verdict in {"wait", "busy"}:
            raise TooManyLoginsError(
                "Wait as long as Retry-After says, then try again.",
                retry_after=wait or timedelta(seconds=1),
            )
        keys = bursts if hidden is None or verdict == "decoy" else [*bursts, hidden]
        return LoginAttempt(keys=tuple(keys), is_known=is_known, is_decoy=verdict == "decoy")

    async def _ask(self, bursts: dict[str, int], hidden: str | None) -> tuple[str, timedelta]:
        """Begin a guess on all the counters, if those that may tell have room for one more.

        `hidden` is the counter that must not tell: held, it makes a decoy of the guess.
        """
        counters = bursts if hidden is None else {**bursts, hidden: BURST}
        async with self._turns:
            row = await self._database.fetchrow(
                _BEGIN, [*counters], [*counters.values()], hidden, FREE_FAILURES, MEMORY, LEASE
            )
        return (row["verdict"], row["wait"]) if row is not None else ("busy", timedelta())

    async def settle(self, attempt: LoginAttempt, outcome: AttemptOutcome) -> None:
        fate = "forgiven" if outcome == "right" and attempt.is_known else outcome
        policy = self._policy
        async with self._turns:
            await self._database.fetchrow(
                _SETTLE, attempt.keys, fate, FREE_FAILURES, policy.first, policy.longest
            )


class OpenLoginThrottle(LoginThrottle):
    """Holds nobody: for chaos and load runs, whose clients fail to sign in on purpose."""

    @override
    async def admit(
        self, *, login: str, address: str | None, account_id: AccountId | None, is_known: bool
    ) -> LoginAttempt:
        return LoginAttempt(keys=(), is_known=is_known, is_decoy=False)

    @override
    async def settle(self, attempt: LoginAttempt, outcome: AttemptOutcome) -> None:
        """Count nothing."""
