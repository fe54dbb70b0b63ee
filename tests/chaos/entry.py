"""Runs one process of the platform with a crash planted in it, or with its outbox switched off.

CHAOS_FAIL_AT   a point at which the process kills itself with SIGKILL
CHAOS_FAIL_ODDS how likely it does at each passing, from 0 to 1
CHAOS_OUTBOX    `off` commits changes without their events: what a harness that works must find
CHAOS_CLOCK     seconds this process's clock is ahead, or behind
CHAOS_LEASE     seconds until a call of a dead process is booked
CHAOS_FORGETS   how likely the charge of a call is not settled, from 0 to 1

The product knows nothing of this: what is not set here runs exactly as it ships.
"""

import os
import random
import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

import maas.audit.wiring
import maas.bootstrap
import maas.inference.application.metering
import maas.user.wiring
import maas.worker_services
from maas import cli
from maas.audit.flush_wiring import build_flush
from maas.audit.infrastructure.outbox import OutboxAudit
from maas.audit.public import current_scope
from maas.shared.domain.call import Call
from maas.shared.infrastructure.clock import SystemClock
from maas.user.infrastructure.quota_budgets import PostgresBudgets

FAIL_AT = os.environ.get("CHAOS_FAIL_AT", "")
ODDS = float(os.environ.get("CHAOS_FAIL_ODDS", "0"))
OFFSET = timedelta(seconds=float(os.environ.get("CHAOS_CLOCK", "0")))
LEASE_SECONDS = float(os.environ.get("CHAOS_LEASE", "0"))
FORGETS = float(os.environ.get("CHAOS_FORGETS", "0"))


def pass_point(name: str) -> None:
    """Die here, if this is the place and the dice say so."""
    if name == FAIL_AT and random.random() < ODDS:  # noqa: S311  a dice, not a secret
        os.kill(os.getpid(), signal.SIGKILL)


class FailingAudit(OutboxAudit):
    """Dies inside the transaction, or after its commit and before the stream is told."""

    @override
    async def write(self, session: AsyncSession, call: Call) -> Callable[[], None]:
        announce = await super().write(session, call)
        pass_point("before_commit")

        def die_or_announce() -> None:
            pass_point("after_commit")
            announce()

        return die_or_announce


class ForgetfulAudit(OutboxAudit):
    """The usual pipeline: the event is sent once the change stands, and that is all."""

    @override
    async def write(self, session: AsyncSession, call: Call) -> Callable[[], None]:
        scope = current_scope()
        events = [self._composer.compose(each, call) for each in scope.rows or [scope]]

        def announce() -> None:
            scope.is_written = True
            for event in events:
                self._stream.offer(event)

        return announce


class ShiftedClock(SystemClock):
    """The clock of a machine whose time is wrong."""

    @override
    def now(self) -> datetime:
        return super().now() + OFFSET


class ForgetfulBudgets(PostgresBudgets):
    """Says that a charge is settled, and now and then has not done it."""

    @override
    async def settle(self, *arguments: Any, **more: Any) -> bool:
        if random.random() < FORGETS:  # noqa: S311  a dice, not a secret
            return True
        return await super().settle(*arguments, **more)


def _pass_point_of_flush(name: str) -> None:
    pass_point("after_flush" if name == "after_commit" else name)


def plant() -> None:
    """Put the wanted faults where the parts are wired together."""
    wiring: Any = maas.audit.wiring
    if os.environ.get("CHAOS_OUTBOX") == "off":
        wiring.OutboxAudit = ForgetfulAudit
    elif FAIL_AT in {"before_commit", "after_commit"}:
        wiring.OutboxAudit = FailingAudit
    if FAIL_AT in {"after_read", "after_insert", "after_flush"}:
        services: Any = maas.worker_services
        services.build_flush = partial(build_flush, checkpoint=_pass_point_of_flush)
    if FORGETS:
        users: Any = maas.user.wiring
        users.PostgresBudgets = ForgetfulBudgets
    if LEASE_SECONDS:
        metering: Any = maas.inference.application.metering
        metering.LEASE = timedelta(seconds=LEASE_SECONDS)
        metering.RENEW_AFTER = timedelta(seconds=LEASE_SECONDS / 4)
        metering.LOOK_SECONDS = LEASE_SECONDS / 8
    if OFFSET:
        for module in (maas.bootstrap, maas.worker_services):
            patched: Any = module
            patched.SystemClock = ShiftedClock


if __name__ == "__main__":
    plant()
    cli.app()
