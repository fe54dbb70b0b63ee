from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import asyncpg
import pytest
from sqlalchemy import Executable, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from maas.audit.public import audit_scope
from maas.bootstrap import Platform, open_platform
from maas.shared.domain.call import NoCallError, serving
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork, UnauditedChangeError
from maas.user.domain.tenant import Slug
from maas.user.infrastructure.tables import accounts, memberships, roles, tenants
from tests.factories.accounts import make_account
from tests.fakes.recorder import make_call

pytestmark = pytest.mark.integration

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def platform(settings: Settings, database: Database) -> AsyncIterator[Platform]:
    async with open_platform(settings) as platform:
        yield platform


@pytest.fixture
def unit_of_work(platform: Platform) -> Callable[..., SqlUnitOfWork]:
    accounts_service = platform.accounts
    return accounts_service.unit_of_work  # type: ignore[return-value]  # the port of the real one


class TestCommit:
    async def test_a_new_row_without_a_scope_is_refused_and_not_kept(
        self, unit_of_work: Callable[..., SqlUnitOfWork], superuser: Superuser
    ) -> None:
        with serving(make_call()):
            async with unit_of_work() as uow:
                uow.session.add(make_account())

                with pytest.raises(UnauditedChangeError):
                    await uow.commit()

        assert await superuser.fetchval("SELECT count(*) FROM accounts") == 0

    @pytest.mark.parametrize(
        "statement",
        [
            update(accounts).values(status="suspended"),
            insert(tenants).values(id=new_id(), slug=Slug("x"), name="x"),
            text("UPDATE accounts SET status = 'suspended'"),
            text("  with x as (select 1) delete from sessions"),
            text("/* SELECT */ update sessions set version = 2"),
            select(
                update(accounts).values(status="x").returning(accounts.c.id).cte("changed").c.id
            ),
        ],
    )
    async def test_a_statement_that_may_change_needs_a_scope_too(
        self, unit_of_work: Callable[..., SqlUnitOfWork], statement: Executable
    ) -> None:
        with serving(make_call()):
            async with unit_of_work() as uow:
                try:
                    await uow.session.execute(statement)
                except DBAPIError:
                    return  # The role may not even do it.

                with pytest.raises(UnauditedChangeError):
                    await uow.commit()

    async def test_a_statement_on_the_bare_connection_needs_a_scope_too(
        self, unit_of_work: Callable[..., SqlUnitOfWork]
    ) -> None:
        with serving(make_call()):
            async with unit_of_work() as uow:
                connection = await uow.session.connection()
                await connection.execute(update(accounts).values(status="suspended"))

                with pytest.raises(UnauditedChangeError):
                    await uow.commit()

    async def test_the_session_itself_cannot_be_committed(
        self, unit_of_work: Callable[..., SqlUnitOfWork], superuser: Superuser
    ) -> None:
        with serving(make_call()):
            async with audit_scope("account.created"), unit_of_work() as uow:
                uow.session.add(make_account())

                with pytest.raises(UnauditedChangeError):
                    await uow.session.commit()

        assert await superuser.fetchval("SELECT count(*) FROM accounts") == 0

    async def test_what_an_earlier_transaction_changed_does_not_count(
        self, unit_of_work: Callable[..., SqlUnitOfWork]
    ) -> None:
        with serving(make_call()):
            async with audit_scope("account.created"), unit_of_work() as uow:
                uow.session.add(make_account())
                await uow.commit()
            async with unit_of_work() as uow:
                await uow.session.execute(select(accounts.c.id).with_for_update())
                await uow.commit()

    async def test_reading_needs_no_scope(self, unit_of_work: Callable[..., SqlUnitOfWork]) -> None:
        with serving(make_call()):
            async with unit_of_work() as uow:
                await uow.session.execute(select(tenants.c.id))
                await uow.commit()

    async def test_writes_the_event_in_the_same_transaction(
        self, unit_of_work: Callable[..., SqlUnitOfWork], superuser: Superuser
    ) -> None:
        with serving(make_call()):
            async with audit_scope("account.created"), unit_of_work() as uow:
                uow.session.add(make_account())
                await uow.commit()

        rows = await superuser.fetch(
            "SELECT a.xmin::text AS change, o.xmin::text AS event FROM accounts a, audit_outbox o"
        )
        assert len(rows) == 1
        assert rows[0]["change"] == rows[0]["event"]

    async def test_leaving_without_commit_leaves_nothing(
        self, unit_of_work: Callable[..., SqlUnitOfWork], superuser: Superuser
    ) -> None:
        with serving(make_call()):
            async with unit_of_work() as uow:
                uow.session.add(make_account())
                await uow.session.flush()

        assert await superuser.fetchval("SELECT count(*) FROM accounts") == 0
        assert await superuser.fetchval("SELECT count(*) FROM audit_outbox") == 0

    async def test_outside_of_a_call_nothing_opens(
        self, unit_of_work: Callable[..., SqlUnitOfWork]
    ) -> None:
        with pytest.raises(NoCallError):
            await unit_of_work().__aenter__()


class TestRowLevelSecurity:
    async def test_without_a_tenant_a_tenants_table_cannot_be_read(
        self, unit_of_work: Callable[..., SqlUnitOfWork]
    ) -> None:
        with serving(make_call()):
            async with unit_of_work() as uow:
                with pytest.raises(DBAPIError):
                    await uow.session.execute(select(roles))

    async def test_another_tenants_rows_are_not_there(
        self, unit_of_work: Callable[..., SqlUnitOfWork]
    ) -> None:
        with serving(make_call()):
            async with unit_of_work() as uow:
                await uow.act_in(DEFAULT_TENANT_ID)
                own = len((await uow.session.execute(select(roles))).all())
                await uow.act_in(TenantId(new_id()))
                foreign = len((await uow.session.execute(select(roles))).all())

        assert own == 5
        assert foreign == 0

    async def test_a_row_cannot_be_written_into_another_tenant(
        self, unit_of_work: Callable[..., SqlUnitOfWork]
    ) -> None:
        with serving(make_call()):
            async with unit_of_work() as uow:
                await uow.act_in(DEFAULT_TENANT_ID)
                with pytest.raises(DBAPIError, match="row-level security"):
                    await uow.session.execute(
                        insert(memberships).values(tenant_id=new_id(), account_id=new_id())
                    )
