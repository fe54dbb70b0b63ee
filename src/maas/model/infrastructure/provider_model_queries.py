"""Reads of suppliers' models and prices: raw asyncpg, each in a read-only transaction."""

from decimal import Decimal
from typing import Final

import asyncpg

from maas.model.application.provider_model_queries import (
    PriceDetails,
    PriceFilter,
    ProviderModelDetails,
)
from maas.model.domain.provider import ProviderNotFoundError
from maas.model.domain.provider_model import (
    PriceNotFoundError,
    ProviderModelNotFoundError,
    UnitPrice,
)
from maas.model.infrastructure.provider_queries import SEEN
from maas.model.public import PriceId, ProviderId, ProviderModelId
from maas.shared.domain.page import Page, PageRequest, Position, cut_page, position_of
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database

_SHOWN: Final = """
m.id, m.provider_id, m.name, m.capabilities, m.context_length, m.max_output_tokens, m.status,
CASE WHEN m.tenant_id = $1 THEN m.created_by END AS created_by,
m.created_at, m.updated_at, m.revision
"""
_OF_PROVIDER: Final = f"""
FROM providers p
JOIN provider_models m ON m.provider_id = p.id AND m.tenant_id = p.tenant_id
WHERE {SEEN} AND p.id = $2 AND m.deleted_at IS NULL
"""

HAS_PROVIDER: Final = f"SELECT 1 FROM providers p WHERE {SEEN} AND p.id = $2"  # noqa: S608  no input in it

GET_MODEL: Final = f"SELECT {_SHOWN} {_OF_PROVIDER} AND m.id = $3"

LIST_MODELS: Final = f"""
SELECT {_SHOWN} {_OF_PROVIDER}
  AND ($3::timestamptz IS NULL OR (m.created_at, m.id) < ($3, $4::uuid))
ORDER BY m.created_at DESC, m.id DESC LIMIT $5
"""

COUNT_MODELS: Final = f"SELECT count(*) {_OF_PROVIDER}"

_PRICES_OF: Final = """
SELECT c.*, CASE WHEN c.tenant_id = $1 THEN c.created_by END AS shown_by
FROM provider_prices c
WHERE c.model_id = $2 AND ($3::text IS NULL OR c.currency = $3)
"""
# What held at a moment: of each currency the last that held from then or before. The index is
# asked for each currency once, however long the history is, for each row read is judged by the
# policies first.
_PRICES_AT: Final = """
WITH RECURSIVE currencies (currency) AS (
    SELECT min(p.currency) FROM provider_prices p WHERE p.model_id = $2
    UNION ALL
    SELECT (SELECT min(p.currency) FROM provider_prices p
        WHERE p.model_id = $2 AND p.currency > last.currency)
    FROM currencies last WHERE last.currency IS NOT NULL
)
SELECT held.*, CASE WHEN held.tenant_id = $1 THEN held.created_by END AS shown_by
FROM currencies JOIN LATERAL (
    SELECT * FROM provider_prices p
    WHERE p.model_id = $2 AND p.currency = currencies.currency AND p.valid_from <= $4
    ORDER BY p.valid_from DESC, p.position DESC LIMIT 1) held ON true
WHERE $3::text IS NULL OR currencies.currency = $3
"""

GET_PRICE: Final = f"{_PRICES_OF} AND c.id = $4"


def _paged(prices: str, *, after: int) -> str:
    """List such prices a page at a time; a price stays, so its id tells where a page began."""
    return f"""
SELECT * FROM ({prices}) c
WHERE ${after}::timestamptz IS NULL OR (c.valid_from, c.position) < (
    ${after}, (SELECT b.position FROM provider_prices b WHERE b.id = ${after + 1}::uuid))
ORDER BY c.valid_from DESC, c.position DESC LIMIT ${after + 2}
"""  # noqa: S608  no input in it


LIST_PRICES: Final = _paged(_PRICES_OF, after=4)
LIST_PRICES_AT: Final = _paged(_PRICES_AT, after=5)
COUNT_PRICES: Final = f"SELECT count(*) FROM ({_PRICES_OF}) c"  # noqa: S608  likewise
COUNT_PRICES_AT: Final = f"SELECT count(*) FROM ({_PRICES_AT}) c"  # noqa: S608  likewise


class PostgresProviderModelQueries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_model(
        self, caller: Principal, provider_id: ProviderId, model_id: ProviderModelId
    ) -> ProviderModelDetails:
        async with self._database.tenant(caller.tenant_id) as connection:
            row = await connection.fetchrow(GET_MODEL, caller.tenant_id, provider_id, model_id)
        if row is None:
            raise ProviderModelNotFoundError
        return ProviderModelDetails(**row)

    async def list_models(
        self, caller: Principal, provider_id: ProviderId, page: PageRequest
    ) -> Page[ProviderModelDetails]:
        scope = (caller.tenant_id, provider_id)
        async with self._database.tenant(caller.tenant_id) as connection:
            if await connection.fetchval(HAS_PROVIDER, *scope) is None:
                raise ProviderNotFoundError
            rows = await connection.fetch(LIST_MODELS, *scope, *page.keyset, page.limit + 1)
            total = await connection.fetchval(COUNT_MODELS, *scope) if page.include_total else None
        found = [ProviderModelDetails(**row) for row in rows]
        return cut_page(found, page.limit, total, position_of)

    async def get_price(
        self,
        caller: Principal,
        provider_id: ProviderId,
        model_id: ProviderModelId,
        price_id: PriceId,
    ) -> PriceDetails:
        own = caller.tenant_id
        async with self._database.tenant(own) as connection:
            if await connection.fetchval(GET_MODEL, own, provider_id, model_id) is None:
                raise ProviderModelNotFoundError
            row = await connection.fetchrow(GET_PRICE, own, model_id, None, price_id)
        if row is None:
            raise PriceNotFoundError
        return _price(row)

    async def list_prices(
        self,
        caller: Principal,
        provider_id: ProviderId,
        model_id: ProviderModelId,
        wanted: PriceFilter,
        page: PageRequest,
    ) -> Page[PriceDetails]:
        scope: tuple[object, ...] = (caller.tenant_id, model_id, wanted.currency)
        listing, counting = LIST_PRICES, COUNT_PRICES
        if wanted.at is not None:
            scope = (*scope, wanted.at)
            listing, counting = LIST_PRICES_AT, COUNT_PRICES_AT
        async with self._database.tenant(caller.tenant_id) as connection:
            seen = await connection.fetchval(GET_MODEL, caller.tenant_id, provider_id, model_id)
            if seen is None:
                raise ProviderModelNotFoundError
            rows = await connection.fetch(listing, *scope, *page.keyset, page.limit + 1)
            total = await connection.fetchval(counting, *scope) if page.include_total else None
        found = [_price(row) for row in rows]
        return cut_page(
            found, page.limit, total, lambda last: Position(at=last.valid_from, id=last.id)
        )


def _price(row: asyncpg.Record) -> PriceDetails:
    return PriceDetails(
        id=row["id"],
        provider_id=row["provider_id"],
        model_id=row["model_id"],
        currency=row["currency"],
        valid_from=row["valid_from"],
        created_by=row["shown_by"],
        created_at=row["created_at"],
        input=_text(row["input"]),
        output=_text(row["output"]),
        cached=None if row["cached"] is None else _text(row["cached"]),
        reasoning=None if row["reasoning"] is None else _text(row["reasoning"]),
        request=None if row["request"] is None else _text(row["request"]),
    )


def _text(amount: Decimal) -> str:
    return str(UnitPrice.of(amount))
