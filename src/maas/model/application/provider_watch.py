"""Watching suppliers: each active one is asked for its models from time to time."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from maas.model.application.provider_checks import SupplierCheck
from maas.model.application.provider_ports import SupplierAccount
from maas.model.domain.provider import CredentialUnreadableError, ProviderNotFoundError
from maas.model.domain.provider_check import Finding
from maas.model.public import ProviderId
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import TenantId

_log = structlog.get_logger(__name__)

CHECKS_AT_ONCE: Final = 20
DUE_AT_ONCE: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedProvider:
    id: ProviderId
    tenant_id: TenantId


class WatchLedger(Protocol):
    async def list_due(self, *, checked_before: datetime, limit: int) -> Sequence[WatchedProvider]:
        """List active providers that were not checked since, tenant after tenant.

        First comes the one of each tenant that waited longest, then the second of each, so that
        nobody's many providers keep others waiting.
        """
        ...

    async def get_account(self, provider: WatchedProvider) -> SupplierAccount:
        """Read a provider that is still active, and open its key.

        Raises:
            ProviderNotFoundError, CredentialUnreadableError.
        """
        ...

    async def note(self, provider: WatchedProvider, finding: Finding, *, at: datetime) -> None:
        """Keep what came of a check, and tell the trail where the provider's status changed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchService:
    ledger: WatchLedger
    check: SupplierCheck
    clock: Clock
    interval: timedelta

    async def run(self, *, seconds: float) -> int:
        """Check who is due, and tell how many were; nothing new is begun after so many seconds."""
        until = time.monotonic() + seconds
        # A tick comes a little early or late: who was checked in the one before is due in this.
        before = self.clock.now() - self.interval / 2
        due = iter(await self.ledger.list_due(checked_before=before, limit=DUE_AT_ONCE))
        checked = 0

        async def work() -> None:
            nonlocal checked
            for provider in due:
                if time.monotonic() > until:
                    return
                await self._check(provider)
                checked += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(CHECKS_AT_ONCE):
                group.create_task(work())
        return checked

    async def _check(self, provider: WatchedProvider) -> None:
        try:
            account = await self.ledger.get_account(provider)
        except ProviderNotFoundError:
            return
        except CredentialUnreadableError:
            finding = Finding(outcome="credential-unreadable")
        else:
            try:
                finding = await self.check.list_models(account)
            except Exception:  # noqa: BLE001  the others are asked all the same
                _log.exception("provider_not_checked", provider_id=str(provider.id))
                return
        await self.ledger.note(provider, finding, at=self.clock.now())
