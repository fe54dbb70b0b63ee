"""How transactions begin, and what they leave behind on a connection that others use next."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from maas.bootstrap import open_platform
from maas.shared.domain.call import serving
from maas.shared.domain.ids import TenantId, new_id
from maas.shared.infrastructure.database import Database, spell_begin
from maas.shared.infrastructure.settings import Settings
from maas.shared.infrastructure.transactions import begin_with
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork
from tests.conftest import MakeSettings
from tests.fakes.recorder import make_call

pytestmark = pytest.mark.integration

TENANT = text("SELECT nullif(current_setting('maas.tenant_id', true), '')")
BACKEND = text("SELECT pg_backend_pid()")


@pytest.fixture
async def database(make_settings: MakeSettings) -> AsyncIterator[Database]:
    """One connection for all, so that each finds what the one before left."""
    database = Database(make_settings(database={"pool_size": 1}).database)
    yield database
    await database.close()


async def driver_of(connection: AsyncConnection) -> "asyncpg.Connection[asyncpg.Record]":
    driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, asyncpg.Connection)
    return driver


async def test_the_tenant_goes_along_with_begin(database: Database) -> None:
    tenant_id, sent = TenantId(new_id()), []
    async with database.engine.connect() as connection:
        (await driver_of(connection)).add_query_logger(lambda query: sent.append(query.query))

        assert begin_with(connection, spell_begin(tenant_id))
        assert await connection.scalar(TENANT) == str(tenant_id)
        await connection.commit()
        assert await connection.scalar(TENANT) is None

    assert [query for query in sent if "BEGIN" in query] == [spell_begin(tenant_id), "BEGIN"]


async def test_a_transaction_that_has_begun_does_not_begin_again(database: Database) -> None:
    async with database.engine.connect() as connection:
        await connection.scalar(TENANT)

        assert not begin_with(connection, spell_begin(TenantId(new_id())))


async def test_one_that_never_began_leaves_its_tenant_to_nobody(database: Database) -> None:
    async with database.engine.connect() as connection:
        assert begin_with(connection, spell_begin(TenantId(new_id())))

    async with database.engine.connect() as connection:
        assert await connection.scalar(TENANT) is None


async def test_one_that_failed_as_it_began_leaves_a_connection_to_work_with(
    database: Database,
) -> None:
    async with database.engine.connect() as connection:
        backend = await connection.scalar(BACKEND)
    async with database.engine.connect() as connection:
        begin_with(connection, "BEGIN; SELECT 1 / 0")
        with pytest.raises(DBAPIError, match="division by zero"):
            await connection.scalar(TENANT)

    async with database.engine.connect() as connection:
        assert await connection.scalar(BACKEND) == backend


async def test_a_unit_of_work_begins_in_its_tenant_with_one_message(settings: Settings) -> None:
    tenant_id, sent = TenantId(new_id()), []
    async with open_platform(settings) as platform:
        with serving(make_call()):
            async with platform.accounts.unit_of_work() as uow:
                assert isinstance(uow, SqlUnitOfWork)
                driver = await driver_of(await uow.session.connection())
                driver.add_query_logger(lambda query: sent.append(query.query))
                await uow.act_in(tenant_id)
                await uow.session.execute(TENANT)
                await uow.commit()

    assert sent == [spell_begin(tenant_id), "COMMIT"]
