"""Prices in the database: in which order they hold, what no row may be, and who reads them."""

import asyncio
import itertools
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest

from maas.model.application import provider_models as use_cases
from maas.model.application.provider_model_queries import (
    PriceDetails,
    PriceFilter,
    ProviderModelDetails,
)
from maas.model.application.provider_models import (
    NewPrice,
    NewProviderModel,
    ProviderModelService,
)
from maas.model.domain.provider_model import (
    Currency,
    PriceInThePastError,
    ProviderModelName,
    TooManyCurrenciesError,
    UnitPrice,
)
from maas.model.infrastructure.provider_model_queries import PostgresProviderModelQueries
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import PageRequest
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from tests.integration.model.conftest import acting_as, make_principal
from tests.integration.model.test_providers import Suppliers, anything, as_operator

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

INSERT = """
    INSERT INTO provider_prices (id, model_id, provider_id, tenant_id, currency, input, output,
                                 valid_from, created_by, created_at)
    SELECT gen_random_uuid(), $1, $2, $3, $4, $5::text::numeric, 1, now() + $6::interval, $3,
           now() + $6::interval
"""
# As many prices as a model may have, in more currencies than are let in any more.
MANY = """
    INSERT INTO provider_prices (id, model_id, provider_id, tenant_id, currency, input, output,
                                 valid_from, created_by, created_at)
    SELECT gen_random_uuid(), $1, $2, $3,
           chr(65 + i / 676 % 26) || chr(65 + i / 26 % 26) || chr(65 + i % 26), 1, 1,
           now() - interval '1 day' + i * interval '1 s', $3, now() - interval '1 day'
    FROM generate_series(0, 9999) i
"""


class SlowClock:
    """A machine's clock that is an hour behind."""

    def now(self) -> datetime:
        return SystemClock().now() - timedelta(hours=1)


def make_service(suppliers: Suppliers) -> ProviderModelService:
    return ProviderModelService(unit_of_work=suppliers.make_unit_of_work, clock=SlowClock())


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A model of a supplier, and what sets and reads its prices."""

    suppliers: Suppliers
    owner: Principal
    model: ProviderModelDetails

    @property
    def service(self) -> ProviderModelService:
        return make_service(self.suppliers)

    @property
    def queries(self) -> PostgresProviderModelQueries:
        return PostgresProviderModelQueries(self.suppliers.database)

    @property
    def row(self) -> tuple[UUID, UUID, UUID]:
        return self.model.id, self.model.provider_id, self.owner.tenant_id

    async def set(
        self, amount: str, *, currency: str = "USD", valid_from: datetime | None = None
    ) -> PriceDetails:
        new = NewPrice(
            currency=Currency(currency),
            input=UnitPrice(amount),
            output=UnitPrice("1"),
            valid_from=valid_from,
        )
        async with acting_as(self.owner):
            return await self.service.set_price(
                self.owner, self.model.provider_id, self.model.id, new
            )

    async def held(self, at: datetime) -> list[str]:
        page = await self.queries.list_prices(
            self.owner,
            self.model.provider_id,
            self.model.id,
            PriceFilter(at=at),
            PageRequest(),
        )
        return [f"{price.currency} {price.input}" for price in page.items]

    async def seen(self, tenant_id: TenantId) -> list[int]:
        """Count what the database shows a tenant, with no condition of ours."""
        async with self.suppliers.database.tenant(tenant_id) as connection:
            return [
                await connection.fetchval(f"SELECT count(*) FROM {table}")
                for table in ("providers", "provider_models", "provider_prices", "provider_health")
            ]


@pytest.fixture
async def priced(database: Database, principal: Principal) -> Priced:
    suppliers = Suppliers(database=database)
    provider = await suppliers.make(principal, key=None)
    new = NewProviderModel(name=ProviderModelName("gpt-4o-mini"), capabilities=["chat"])
    async with acting_as(principal):
        model = await make_service(suppliers).add(principal, provider.id, new)
    return Priced(suppliers=suppliers, owner=principal, model=model)


async def test_the_database_tells_from_when_on(priced: Priced, superuser: Superuser) -> None:
    before = await superuser.fetchval("SELECT clock_timestamp()")
    price = await priced.set("1")
    after = await superuser.fetchval("SELECT clock_timestamp()")

    assert before < price.valid_from < after
    with pytest.raises(PriceInThePastError):
        await priced.set("2", valid_from=after - timedelta(minutes=30))


async def test_the_price_set_last_holds_whatever_another_clock_said(
    priced: Priced, superuser: Superuser
) -> None:
    await superuser.execute(INSERT, *priced.row, "USD", "1", timedelta(seconds=20))
    mended = await priced.set("9")

    assert await priced.held(mended.valid_from + timedelta(days=1)) == ["USD 9"]


async def test_of_two_from_one_moment_the_one_set_later_holds(
    priced: Priced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids are by the clocks of processes, of which one may be behind."""
    ids = itertools.count(2**100, -1)
    monkeypatch.setattr(use_cases, "new_id", lambda: UUID(int=next(ids)))
    soon = SystemClock().now() + timedelta(hours=1)
    made = [await priced.set(str(amount), valid_from=soon) for amount in (1, 2, 3)]

    found: list[PriceDetails] = []
    page = PageRequest(limit=1)
    while len(found) < 4:
        listed = await priced.queries.list_prices(
            priced.owner, priced.model.provider_id, priced.model.id, PriceFilter(), page
        )
        found += listed.items
        if listed.next is None:
            break
        page = PageRequest(limit=1, after=listed.next)
    assert found == made[::-1]
    assert await priced.held(soon) == ["USD 3"]


async def test_one_currency_too_many_is_refused(
    priced: Priced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_cases, "MAX_CURRENCIES", 2)
    last = [await priced.set("1", currency=each) for each in ("USD", "EUR", "USD")][-1]

    with pytest.raises(TooManyCurrenciesError):
        await priced.set("1", currency="CNY")
    assert await priced.held(last.valid_from) == ["USD 1", "EUR 1"]


@pytest.mark.parametrize("wrong", [("USD", "-1"), ("USD", "NaN"), ("usd", "1"), ("", "1")])
async def test_the_database_keeps_nothing_that_is_no_price(
    priced: Priced, superuser: Superuser, wrong: tuple[str, str]
) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await superuser.execute(INSERT, *priced.row, *wrong, timedelta(0))


async def test_what_held_is_told_of_a_long_history_as_well(
    priced: Priced, superuser: Superuser
) -> None:
    await superuser.execute(MANY, *priced.row)

    # The database gives up after 5 s by itself; it takes less than one.
    async with asyncio.timeout(4):
        page = await priced.queries.list_prices(
            priced.owner,
            priced.model.provider_id,
            priced.model.id,
            PriceFilter(at=SystemClock().now()),
            PageRequest(include_total=True),
        )
    assert page.total == 10_000


@pytest.mark.parametrize("end", ["the model", "the provider", "suspended", "deleted"])
async def test_a_grantee_reads_nothing_of_what_is_gone(
    priced: Priced, superuser: Superuser, end: str
) -> None:
    owner, provider_id, stranger = priced.owner, priced.model.provider_id, make_principal()
    await superuser.execute(
        "INSERT INTO tenants (id, slug, name, status) VALUES ($1, 'owner', 'Owner', 'active')",
        owner.tenant_id,
    )
    await superuser.execute(
        "INSERT INTO provider_health VALUES ($1, $2, 'healthy', 'ok', now(), now(), 1, 0)",
        provider_id,
        owner.tenant_id,
    )
    await priced.set("1")
    async with acting_as(owner):
        await priced.suppliers.service.grant(as_operator(owner), provider_id, stranger.tenant_id)
    before = await priced.seen(stranger.tenant_id)
    if end == "the model":
        async with acting_as(owner):
            await priced.service.delete(owner, provider_id, priced.model.id, check=anything)
    elif end == "the provider":
        async with acting_as(owner):
            await priced.suppliers.service.delete(owner, provider_id, check=anything)
    else:
        await superuser.execute(
            "UPDATE tenants SET status = $1 WHERE id = $2", end, owner.tenant_id
        )

    is_there = int(end == "the model")
    assert before == [1, 1, 1, 1]
    assert await priced.seen(stranger.tenant_id) == [is_there, 0, 0, is_there]
