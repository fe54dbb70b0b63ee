import asyncio

import asyncpg
import pytest
from sqlalchemy import text

from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.metrics import Metrics
from maas.shared.infrastructure.pool_watch import PoolWatch
from maas.shared.infrastructure.settings import Settings

POOLS = ("reads", "changes")

pytestmark = pytest.mark.integration


class TestDatabase:
    async def test_connects_as_the_role_that_row_level_security_binds(
        self, database: Database
    ) -> None:
        row = await database.fetchrow(
            "SELECT current_user AS name, rolbypassrls AS bypasses, rolsuper AS super"
            " FROM pg_roles WHERE rolname = current_user"
        )

        assert row is not None
        assert (row["name"], row["bypasses"], row["super"]) == ("maas_app", False, False)

    async def test_forgets_the_tenant_when_the_transaction_ends(self, database: Database) -> None:
        async with database.tenant(DEFAULT_TENANT_ID) as connection:
            inside = await connection.fetchval("SELECT current_setting('maas.tenant_id')")

        outside = await database.fetchrow(
            "SELECT current_setting('maas.tenant_id', true) AS tenant"
        )

        assert inside == str(DEFAULT_TENANT_ID)
        assert outside is not None
        assert outside["tenant"] in (None, "")

    async def test_refuses_to_write_in_a_read(self, database: Database) -> None:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            async with database.tenant(DEFAULT_TENANT_ID) as connection:
                await connection.execute("CREATE TEMP TABLE t (x int)")

    async def test_gives_no_connection_that_is_out_of_step_to_the_next(
        self, database: Database
    ) -> None:
        async def backend() -> int:
            row = await database.fetchrow("SELECT pg_backend_pid() AS pid")
            assert row is not None
            return int(row["pid"])

        async def get_out_of_step() -> None:
            async with database.acquire():
                # As seen when a server's error was cut off in the middle.
                raise asyncpg.InternalClientError("cannot switch to state 15")

        before = await backend()
        with pytest.raises(asyncpg.InternalClientError):
            await get_out_of_step()

        assert await backend() != before


@pytest.mark.parametrize("pool", POOLS)
async def test_who_waits_for_a_connection_is_passed_by_nobody(
    settings: Settings, clean: None, pool: str
) -> None:
    own = settings.database.model_copy(update={"pool_size": 1, "read_pool_size": 1})
    database = Database(own)
    await database.open()
    take = database.acquire if pool == "reads" else database.engine.connect
    served: list[str] = []

    async def wait() -> None:
        async with take():
            served.append("who waited")

    async def come_once_one_is_free() -> None:
        # Each turn of the loop, so that nobody can be quicker.
        while not database.pool_use()[pool].idle and not served:  # noqa: ASYNC110  as said above
            await asyncio.sleep(0)
        async with take():
            served.append("who came")

    try:
        async with take():
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0.1)
            coming = asyncio.create_task(come_once_one_is_free())
            await asyncio.sleep(0)
        await asyncio.gather(waiting, coming)
    finally:
        await database.close()

    assert served == ["who waited", "who came"]


async def test_the_metrics_tell_how_many_connections_are_held(database: Database) -> None:
    metrics = Metrics()
    watch = PoolWatch(database, metrics)
    reads, changes = (f'maas_database_connections{{pool="{pool}",state="used"}}' for pool in POOLS)

    async with database.acquire(), database.acquire(), database.engine.connect() as session:
        await session.execute(text("SELECT 1"))
        watch.look()
        held = (await metrics.render()).decode()
    watch.look()
    free = (await metrics.render()).decode()

    assert (f"{reads} 2.0" in held, f"{changes} 1.0" in held) == (True, True)
    assert (f"{reads} 0.0" in free, f"{changes} 0.0" in free) == (True, True)
    for pool, use in database.pool_use().items():
        assert use.idle > 0
        assert f'maas_database_connections_limit{{pool="{pool}"}} {use.limit}.0' in free
