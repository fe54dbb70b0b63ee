"""Suppliers' models as they are called: the `SuppliedModels` port."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import asyncpg

from maas.model.application.provider_ports import SupplierAccount
from maas.model.domain.provider import CredentialUnreadableError
from maas.model.domain.provider_types import CALL_PATHS, PROVIDER_TYPES
from maas.model.infrastructure.provider_calls import url_of
from maas.model.infrastructure.provider_credentials import SealedCredentials
from maas.model.infrastructure.provider_queries import LIST_ACCOUNTS, SEEN, open_account
from maas.model.public import (
    CurrentPrice,
    PriceId,
    ProviderId,
    ProviderModelId,
    SuppliedModel,
    Uncallable,
)
from maas.shared.domain.ids import TenantId
from maas.shared.domain.pricing import Price, Prices
from maas.shared.infrastructure.database import Database

LIST_VISIBLE: Final = f"""
SELECT m.id, m.provider_id, p.tenant_id, p.name AS provider_name, m.name, m.status, m.capabilities,
    m.context_length, m.max_output_tokens
FROM provider_models m
JOIN providers p ON p.id = m.provider_id AND p.tenant_id = m.tenant_id
WHERE {SEEN} AND m.id = ANY ($2::uuid[]) AND m.deleted_at IS NULL
"""  # noqa: S608  no input in it

# As in `provider_model_queries`: of each currency the last that held from then or before.
_PRICES: Final = """
SELECT held.* FROM unnest($1::uuid[]) AS wanted (id) CROSS JOIN LATERAL (
    WITH RECURSIVE currencies (currency) AS (
        SELECT min(p.currency) FROM provider_prices p WHERE p.model_id = wanted.id
        UNION ALL
        SELECT (SELECT min(p.currency) FROM provider_prices p
            WHERE p.model_id = wanted.id AND p.currency > last.currency)
        FROM currencies last WHERE last.currency IS NOT NULL
    )
    SELECT price.* FROM currencies JOIN LATERAL (
        SELECT p.id, p.model_id, p.currency, p.input, p.output, p.cached, p.reasoning, p.request
        FROM provider_prices p
        WHERE p.model_id = wanted.id AND p.currency = currencies.currency AND p.valid_from <= now()
        ORDER BY p.valid_from DESC, p.position DESC LIMIT 1) price ON true
) held ORDER BY held.model_id, held.currency
"""


class PostgresSuppliedModels:
    """What a tenant sees, row-level security says; the key is read in the supplier's own tenant.

    A grantee is shown no row of a key, here as elsewhere: that the provider is granted is read in
    the grantee's tenant first, and only then is the account read in its owner's.
    """

    def __init__(self, database: Database, seals: SealedCredentials) -> None:
        self._database = database
        self._seals = seals

    async def find_visible(
        self, tenant_id: TenantId, model_ids: Collection[ProviderModelId]
    ) -> frozenset[ProviderModelId]:
        if not model_ids:
            return frozenset()
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(LIST_VISIBLE, tenant_id, list(model_ids))
        return frozenset(ProviderModelId(row["id"]) for row in rows)

    async def read(
        self, tenant_id: TenantId, model_ids: Collection[ProviderModelId]
    ) -> Mapping[ProviderModelId, SuppliedModel | Uncallable]:
        if not model_ids:
            return {}
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(LIST_VISIBLE, tenant_id, list(model_ids))
            prices = await connection.fetch(_PRICES, [row["id"] for row in rows])
        by_model: defaultdict[ProviderModelId, list[CurrentPrice]] = defaultdict(list)
        for price in prices:
            by_model[price["model_id"]].append(_price(price))
        accounts = await self._accounts(rows)
        told: dict[ProviderModelId, SuppliedModel | Uncallable] = dict.fromkeys(
            model_ids, "not-found"
        )
        for row in rows:
            account = accounts.get(row["provider_id"], "not-found")
            told[row["id"]] = _model(row, account, by_model[row["id"]])
        return told

    async def _accounts(
        self, rows: Sequence[asyncpg.Record]
    ) -> Mapping[ProviderId, SupplierAccount | Uncallable]:
        of_owner: defaultdict[TenantId, set[ProviderId]] = defaultdict(set)
        for row in rows:
            of_owner[row["tenant_id"]].add(row["provider_id"])
        accounts: dict[ProviderId, SupplierAccount | Uncallable] = {}
        for owner, provider_ids in of_owner.items():
            async with self._database.tenant(owner) as connection:
                found = await connection.fetch(LIST_ACCOUNTS, owner, list(provider_ids))
            for account in found:
                try:
                    accounts[account["id"]] = open_account(account, self._seals)
                except CredentialUnreadableError:
                    accounts[account["id"]] = "credential-unreadable"
        return accounts


def _model(
    row: asyncpg.Record, account: SupplierAccount | Uncallable, prices: Sequence[CurrentPrice]
) -> SuppliedModel | Uncallable:
    if isinstance(account, str):
        return account
    if account.status != "active" or row["status"] != "active":
        return "disabled"
    kind = PROVIDER_TYPES[account.type]
    if account.key is None and kind.needs_key:
        return "credential-missing"
    paths = CALL_PATHS[kind.protocol]
    return SuppliedModel(
        id=row["id"],
        provider_id=row["provider_id"],
        provider_name=row["provider_name"],
        kind=account.type,
        protocol=kind.protocol,
        reach=account.reach,
        name=row["name"],
        urls={each: url_of(account, paths[each]) for each in row["capabilities"] if each in paths},
        headers=kind.key_headers(None if account.key is None else account.key.plain),
        prices=prices,
        context_length=row["context_length"],
        max_output_tokens=row["max_output_tokens"],
    )


def _price(row: asyncpg.Record) -> CurrentPrice:
    prices = Prices(
        currency=row["currency"],
        input=Price(row["input"]),
        output=Price(row["output"]),
        cached=None if row["cached"] is None else Price(row["cached"]),
        reasoning=None if row["reasoning"] is None else Price(row["reasoning"]),
        request=row["request"],
    )
    return CurrentPrice(id=PriceId(row["id"]), prices=prices)
