"""What the database itself refuses, whatever the application tries."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from maas.shared.domain.ids import TenantId, new_id
from tests.conftest import WorkerDatabase
from tests.integration.audit.helpers import Superuser, Trail
from tests.servers import Servers

pytestmark = pytest.mark.integration

TENANT = TenantId(new_id())
OTHER_TENANT = TenantId(new_id())


@pytest.fixture
async def two_tenants(trail: Trail) -> None:
    await trail.add(
        trail.make(tenant_id=TENANT),
        trail.make(tenant_id=TENANT),
        trail.make("auth.login", tenant_id=OTHER_TENANT),
    )
    await trail.flush().run()


@pytest.fixture
async def app(
    servers: Servers, worker_database: WorkerDatabase, two_tenants: None
) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await servers.connect(worker_database.name, "maas_app")
    yield connection
    await connection.close()


@pytest.fixture
async def system(
    servers: Servers, worker_database: WorkerDatabase, two_tenants: None
) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await servers.connect(worker_database.name, "maas_system")
    yield connection
    await connection.close()


class TestApplication:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE audit_log SET action = 'x'",
            "DELETE FROM audit_log",
            "TRUNCATE audit_log",
            "INSERT INTO audit_log SELECT * FROM audit_log",
            "SELECT * FROM audit_log_operations",
            "UPDATE audit_chain SET seq = 0",
            "DELETE FROM audit_chain",
            "TRUNCATE audit_chain",
            "INSERT INTO audit_chain SELECT * FROM audit_chain",
            "UPDATE audit_head SET seq = 0",
            "DELETE FROM audit_head",
            "TRUNCATE audit_head",
            *(
                statement.format(table)
                for table in ("audit_checkpoints", "audit_signing_keys")
                for statement in (
                    "UPDATE {} SET key_id = ''",
                    "DELETE FROM {}",
                    "TRUNCATE {} CASCADE",
                    "INSERT INTO {0} SELECT * FROM {0}",
                )
            ),
            "DELETE FROM audit_personal",
            "UPDATE audit_personal SET email = NULL",
            "SELECT * FROM audit_outbox",
            "DELETE FROM audit_outbox",
            "UPDATE audit_outbox SET payload = ''",
            "SELECT * FROM audit_dedup",
            "SELECT * FROM audit_dead_letter",
            "SELECT * FROM audit_erasures",
            "UPDATE audit_erasures SET erased_at = now()",
            "DELETE FROM audit_erasures",
            "SELECT audit_ensure_partition('usage', now())",
            "ALTER TABLE audit_log DISABLE ROW LEVEL SECURITY",
            "DROP TABLE audit_log",
            "SET session_replication_role = replica",
        ],
    )
    async def test_may_not(self, app: "asyncpg.Connection[asyncpg.Record]", statement: str) -> None:
        async with app.transaction():
            await app.execute(f"SET LOCAL maas.tenant_id = '{TENANT}'")

            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with app.transaction():
                    await app.execute(statement)

    @pytest.mark.parametrize("table", ["audit_log", "audit_personal"])
    async def test_sees_its_own_tenant_only(
        self, app: "asyncpg.Connection[asyncpg.Record]", table: str
    ) -> None:
        counted = []
        for tenant_id in (TENANT, OTHER_TENANT, new_id()):
            async with app.transaction():
                await app.execute(f"SET LOCAL maas.tenant_id = '{tenant_id}'")
                counted.append(await app.fetchval(f"SELECT count(*) FROM {table}"))

        assert counted == [2, 1, 0]

    @pytest.mark.parametrize("table", ["audit_log", "audit_personal"])
    async def test_without_a_tenant_gets_an_error_and_not_all_rows(
        self, app: "asyncpg.Connection[asyncpg.Record]", table: str
    ) -> None:
        with pytest.raises(asyncpg.UndefinedObjectError):
            await app.fetch(f"SELECT * FROM {table}")

    async def test_after_a_transaction_has_no_tenant_again(
        self, app: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        async with app.transaction():
            await app.execute(f"SET LOCAL maas.tenant_id = '{TENANT}'")
            await app.fetch("SELECT * FROM audit_log")

        with pytest.raises(asyncpg.DataError):
            await app.fetch("SELECT * FROM audit_log")


class TestSystem:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE audit_log SET action = 'x'",
            "DELETE FROM audit_log",
            "TRUNCATE audit_log",
            "UPDATE audit_chain SET seq = 0",
            "DELETE FROM audit_head",
            "UPDATE audit_checkpoints SET root = head",
            "DELETE FROM audit_checkpoints",
            "DELETE FROM audit_signing_keys",
            "DELETE FROM audit_dead_letter",
            "UPDATE audit_outbox SET payload = ''",
            "UPDATE audit_personal SET email = NULL",
            "DELETE FROM audit_erasures",
            "DROP TABLE audit_log",
        ],
    )
    async def test_may_not_change_what_is_recorded(
        self, system: "asyncpg.Connection[asyncpg.Record]", statement: str
    ) -> None:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await system.execute(statement)


@pytest.mark.usefixtures("two_tenants")
class TestSuperuser:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE audit_log SET action = 'x'",
            "DELETE FROM audit_log",
            "TRUNCATE audit_log",
            "TRUNCATE audit_log_security",
            "UPDATE audit_chain SET seq = 0",
            "DELETE FROM audit_chain",
            "TRUNCATE audit_chain",
            "UPDATE audit_checkpoints SET root = head",
            "DELETE FROM audit_checkpoints",
            "TRUNCATE audit_checkpoints",
            "DELETE FROM audit_signing_keys",
        ],
    )
    async def test_is_stopped_by_the_trigger(self, superuser: Superuser, statement: str) -> None:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await superuser.execute(statement)

    async def test_is_stopped_at_every_partition(self, superuser: Superuser) -> None:
        partitions = await superuser.fetch(
            "SELECT relid::text AS name FROM pg_partition_tree('audit_log') WHERE isleaf"
        )

        assert len(partitions) >= 12
        for partition in partitions:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                await superuser.execute(f"TRUNCATE {partition['name']}")


class TestEnsurePartition:
    async def test_makes_one_for_a_far_month_once(
        self, system: "asyncpg.Connection[asyncpg.Record]", superuser: Superuser
    ) -> None:
        query = "SELECT audit_ensure_partition('usage', '2031-02-28 23:59:59+00')"
        try:
            names = [await system.fetchval(query) for _ in range(2)]

            bound = await superuser.fetchval(
                "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = $1", names[0]
            )
            triggers = await superuser.fetchval(
                "SELECT count(*) FROM pg_trigger WHERE tgrelid = $1::regclass", names[0]
            )
            indexes = await superuser.fetchval(
                "SELECT count(*) FROM pg_indexes WHERE tablename = $1", names[0]
            )
        finally:
            await superuser.execute("DROP TABLE IF EXISTS audit_log_usage_2031_02")

        assert names == ["audit_log_usage_2031_02"] * 2
        assert "'2031-02-01 00:00:00+00'" in bound
        assert "'2031-03-01 00:00:00+00'" in bound
        assert triggers == 2
        assert indexes == 14

    @pytest.mark.parametrize(
        "arguments",
        [
            "'nonsense', now()",
            "'usage; DROP TABLE audit_log', now()",
            "NULL, now()",
            "'usage', NULL",
            "'usage', 'infinity'",
        ],
    )
    async def test_refuses_anything_else(
        self, system: "asyncpg.Connection[asyncpg.Record]", arguments: str
    ) -> None:
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await system.execute(f"SELECT audit_ensure_partition({arguments})")

    async def test_does_not_follow_the_callers_search_path(
        self, system: "asyncpg.Connection[asyncpg.Record]", superuser: Superuser
    ) -> None:
        await system.execute("CREATE TEMP TABLE audit_log (evil int)")
        await system.execute("SET search_path = pg_temp, public")
        try:
            name = await system.fetchval("SELECT audit_ensure_partition('usage', '2032-01-15')")
        finally:
            await superuser.execute("DROP TABLE IF EXISTS public.audit_log_usage_2032_01")

        assert name == "audit_log_usage_2032_01"
