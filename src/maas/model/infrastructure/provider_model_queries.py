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
from maas.model.domain.provider_model import ProviderModelNotFoundError, UnitPrice
from maas.model.infrastructure.provider_queries import SEEN, keyset
from maas.model.public import ProviderId, ProviderModelId
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

# What held at a moment: of each currency the last that held from then or before.
_PRICES_OF: Final = """
SELECT c.*, CASE WHEN c.tenant_id = $1 THEN c.created_by END AS shown_by
FROM provider_prices c
WHERE c.model_id = $2 AND ($3::text IS NULL OR c.currency = $3)
  AND ($4::timestamptz IS NULL OR (c.valid_from <= $4 AND NOT EXISTS (
    SELECT FROM provider_prices later
    WHERE later.model_id = c.model_id AND later.currency = c.currency
      AND later.valid_from <= $4 AND (later.valid_from, later.id) > (c.valid_from, c.id))))
"""

LIST_PRICES: Final = f"""
SELECT * FROM ({_PRICES_OF}) c
WHERE $5::timestamptz IS NULL OR (c.valid_from, c.id) < ($5, $6::uuid)
ORDER BY c.valid_from DESC, c.id DESC LIMIT $7
"""  # noqa: S608  no input in it

COUNT_PRICES: Final = f"SELECT count(*) FROM ({_PRICES_OF}) c"  # noqa: S608  likewise


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
            rows = await connection.fetch(LIST_MODELS, *scope, *keyset(page), page.limit + 1)
            total = await connection.fetchval(COUNT_MODELS, *scope) if page.include_total else None
        found = [ProviderModelDetails(**row) for row in rows]
        return cut_page(found, page.limit, total, position_of)

    async def list_prices(
        self,
        caller: Principal,
        provider_id: ProviderId,
        model_id: ProviderModelId,
        wanted: PriceFilter,
        page: PageRequest,
    ) -> Page[PriceDetails]:
        scope = (caller.tenant_id, model_id, wanted.currency, wanted.at)
        async with self._database.tenant(caller.tenant_id) as connection:
            seen = await connection.fetchval(GET_MODEL, caller.tenant_id, provider_id, model_id)
            if seen is None:
                raise ProviderModelNotFoundError
            rows = await connection.fetch(LIST_PRICES, *scope, *keyset(page), page.limit + 1)
            total = await connection.fetchval(COUNT_PRICES, *scope) if page.include_total else None
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
