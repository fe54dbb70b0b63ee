"""Asking suppliers whether they answer, with which models: tests, discovery, and the watch."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from maas.audit.public import current_scope
from maas.model.application.provider_ports import (
    ProviderUnitOfWork,
    SupplierAccount,
    SupplierAccounts,
)
from maas.model.application.trail import PROVIDER
from maas.model.domain.provider import CredentialUnreadableError
from maas.model.domain.provider_check import (
    TESTS_AT_ONCE,
    DiscoveryFailedError,
    Finding,
    ListedModel,
    ProviderUnderTestError,
    SupplierAnswer,
    SupplierCallError,
    ask_for_model,
    judge,
    judge_list,
    judge_model,
)
from maas.model.domain.provider_model import ProviderModelName
from maas.model.domain.provider_types import PROVIDER_TYPES
from maas.model.public import Capability, ProviderId, ProviderModelId
from maas.shared.application.running import RunningTests
from maas.shared.domain.ids import TenantId
from maas.shared.domain.principal import Principal

CHECK_SECONDS: Final = 15.0
"""For a list of models; a key that is checked apart has its share of it."""

TEST_SECONDS: Final = 30.0
"""For a test with a model, which may have to be loaded first."""

LARGE_BYTES: Final = 100_000
"""Reading a longer list takes so long that other callers would wait for it."""


class SupplierCalls(Protocol):
    async def send(
        self, account: SupplierAccount, path: str, *, body: Mapping[str, object] | None = None
    ) -> SupplierAnswer:
        """Call a supplier under its base URL, with its key; with a body it is a POST.

        Raises:
            SupplierCallError: there is no answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedModel:
    """A model that was added here."""

    id: ProviderModelId
    capabilities: Sequence[Capability]


class AddedModels(Protocol):
    async def find(
        self, tenant_id: TenantId, provider_id: ProviderId, names: Sequence[str]
    ) -> Mapping[str, AddedModel]:
        """Find those of the names that were added to the tenant's own provider."""
        ...


def _make_running_tests() -> RunningTests[ProviderId]:
    return RunningTests(of_tenant=TESTS_AT_ONCE, refuse=ProviderUnderTestError)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplierCheck:
    """The one way suppliers are asked, by people and by the watch."""

    calls: SupplierCalls

    async def list_models(self, account: SupplierAccount) -> Finding:
        """Have the supplier list its models, and its key looked at where that list is public."""
        return await _timed(self._list(account), seconds=CHECK_SECONDS)

    async def try_model(
        self, account: SupplierAccount, model: str, capabilities: Sequence[Capability]
    ) -> Finding:
        """Tell whether the supplier has the model: by its list, else by the smallest call."""
        return await _timed(self._try(account, model, capabilities), seconds=TEST_SECONDS)

    async def _list(self, account: SupplierAccount) -> Finding:
        kind, key = PROVIDER_TYPES[account.type], account.key
        if kind.needs_key and key is None:
            return Finding(outcome="credential-missing")
        if kind.key_check_path is not None:
            refused = judge(await self.calls.send(account, kind.key_check_path), key=key)
            if refused is not None:
                return refused
        answer = await self.calls.send(account, kind.models_path)
        if len(answer.body) <= LARGE_BYTES:
            return judge_list(answer, key=key)
        return await asyncio.to_thread(judge_list, answer, key=key)

    async def _try(
        self, account: SupplierAccount, model: str, capabilities: Sequence[Capability]
    ) -> Finding:
        kind = PROVIDER_TYPES[account.type]
        listed = await self._list(account)
        names = {each.name for each in listed.models or ()}
        if listed.outcome not in ("ok", "address-wrong") or (
            kind.lists_what_is_called and model in names
        ):
            return listed
        question = ask_for_model(kind, model, capabilities)
        answer = await self.calls.send(account, question.path, body=question.body)
        is_listed = listed.outcome == "ok"
        judged = judge_model(answer, key=account.key, is_listed=is_listed)
        return replace(judged, models=listed.models)


async def _timed(check: Coroutine[None, None, Finding], *, seconds: float) -> Finding:
    """Have a check end in time, and tell how long it took."""
    begun = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            finding = await check
    except TimeoutError:
        finding = Finding(outcome="timed-out")
    except SupplierCallError as exc:
        finding = Finding(outcome=exc.outcome, detail=exc.detail)
    return replace(finding, duration_ms=round((time.monotonic() - begun) * 1_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCheckService:
    """What people ask for, of their own tenant's providers; disabled ones as well."""

    accounts: SupplierAccounts
    added: AddedModels
    check: SupplierCheck
    unit_of_work: Callable[[], ProviderUnitOfWork]
    running: RunningTests[ProviderId] = field(default_factory=_make_running_tests)

    async def test(
        self, principal: Principal, provider_id: ProviderId, model: ProviderModelName | None
    ) -> Finding:
        """Ask the supplier now; what came of it stands in the trail.

        Raises:
            ProviderNotFoundError, ProviderUnderTestError.
        """
        tenant_id = principal.tenant_id
        current_scope().resource(PROVIDER, provider_id)
        with self.running.one(tenant_id, provider_id):
            # Nothing is held open meanwhile: a supplier may take its time.
            finding = await self._ask(tenant_id, provider_id, model)
        async with self.unit_of_work() as uow:
            # Again, for it may be gone by now.
            await uow.providers.get(provider_id)
            current_scope().change(PROVIDER, provider_id, after={"outcome": finding.outcome})
            await uow.commit()
        return finding

    async def discover(
        self, principal: Principal, provider_id: ProviderId
    ) -> Sequence[ListedModel]:
        """List what the supplier has, and which of it was added here, by name.

        Raises:
            ProviderNotFoundError, ProviderUnderTestError, DiscoveryFailedError.
        """
        tenant_id = principal.tenant_id
        with self.running.one(tenant_id, provider_id):
            finding = await self._ask(tenant_id, provider_id, None)
        if finding.models is None:
            raise DiscoveryFailedError(finding)
        names = [each.name for each in finding.models]
        added = await self.added.find(tenant_id, provider_id, names)
        return [
            replace(each, model_id=added[each.name].id) if each.name in added else each
            for each in sorted(finding.models, key=lambda each: each.name)
        ]

    async def _ask(
        self, tenant_id: TenantId, provider_id: ProviderId, model: ProviderModelName | None
    ) -> Finding:
        try:
            account = await self.accounts.get(tenant_id, provider_id)
        except CredentialUnreadableError:
            return Finding(outcome="credential-unreadable")
        if model is None:
            return await self.check.list_models(account)
        name = str(model)
        added = await self.added.find(tenant_id, provider_id, [name])
        capabilities = added[name].capabilities if name in added else ()
        return await self.check.try_model(account, name, capabilities)
