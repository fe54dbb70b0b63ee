"""Suppliers in the database: whose rows are whose, keys that stay where they belong, and races."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from maas.model.application import providers as use_cases
from maas.model.application.collection import CollectionService
from maas.model.application.provider_queries import ProviderDetails, ProviderFilter
from maas.model.application.provider_watch import WatchedProvider
from maas.model.application.providers import NewProvider, ProviderService
from maas.model.domain.provider import (
    CredentialUnreadableError,
    ProviderName,
    ProviderNameTakenError,
    ProviderNotFoundError,
    SupplierKey,
    TooManyProvidersError,
)
from maas.model.infrastructure.artifacts import CollectableParts
from maas.model.infrastructure.collection import PostgresCollectionLedger
from maas.model.infrastructure.object_store import DurableObjects
from maas.model.infrastructure.provider_credentials import SealedCredentials
from maas.model.infrastructure.provider_queries import (
    LIST_PROVIDERS,
    PostgresProviderQueries,
    PostgresSupplierAccounts,
)
from maas.model.infrastructure.provider_repository import SqlProviderUnitOfWork
from maas.model.infrastructure.provider_targets import SupplierTargets
from maas.model.infrastructure.provider_watch import PostgresWatchLedger
from maas.model.public import ProviderId
from maas.shared.domain.errors import PreconditionFailedError
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import PageRequest
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.sealing import Sealer
from maas.shared.infrastructure.sealing_ring import FixedKeys, RingKey
from maas.shared.infrastructure.settings import OutgoingSettings
from maas.shared.interface.etags import Match, etag_of
from tests.integration.model.conftest import FakeAudit, NoIdempotency, acting_as, make_principal
from tests.integration.model.test_collection import Told

pytestmark = pytest.mark.integration

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

TABLES = ("providers", "provider_credentials", "provider_grants")
KEY = SupplierKey("sk-canary-0123456789")
SEALS = SealedCredentials(Sealer(FixedKeys([RingKey.derived("a secret of tests alone")])))


def anything(_: int) -> None:
    """Expect nothing."""


def as_operator(principal: Principal) -> Principal:
    return replace(principal, permissions=frozenset({"platform:suppliers"}))


def only(revision: int) -> Callable[[int], None]:
    return Match(frozenset({etag_of(revision)})).check


@dataclass(frozen=True, kw_only=True)
class Suppliers:
    database: Database

    def make_unit_of_work(self) -> SqlProviderUnitOfWork:
        return SqlProviderUnitOfWork(
            self.database.engine, audit=FakeAudit(), idempotency=NoIdempotency()
        )

    @property
    def service(self) -> ProviderService:
        return ProviderService(
            unit_of_work=self.make_unit_of_work,
            check_target=SupplierTargets(OutgoingSettings()),
            seals=SEALS,
            clock=SystemClock(),
        )

    @property
    def queries(self) -> PostgresProviderQueries:
        return PostgresProviderQueries(self.database)

    @property
    def accounts(self) -> PostgresSupplierAccounts:
        return PostgresSupplierAccounts(self.database, SEALS)

    async def make(
        self, owner: Principal, name: str = "OpenAI", *, key: SupplierKey | None = KEY
    ) -> ProviderDetails:
        new = NewProvider(name=ProviderName(name), type="openai")
        async with acting_as(owner):
            made = await self.service.create(owner, new)
        if key is None:
            return made
        async with acting_as(owner):
            return await self.service.set_credential(owner, made.id, key, check=anything)

    async def seen(self, tenant_id: TenantId) -> dict[str, int]:
        """Count what the database shows a tenant, with no condition of ours."""
        async with self.database.tenant(tenant_id) as connection:
            return {
                table: await connection.fetchval(f"SELECT count(*) FROM {table}")
                for table in TABLES
            }


@pytest.fixture
def suppliers(database: Database) -> Suppliers:
    return Suppliers(database=database)


@pytest.fixture
def stranger() -> Principal:
    return make_principal()


NOTHING = dict.fromkeys(TABLES, 0)


class TestWhoseTheyAre:
    async def test_a_stranger_sees_no_row(
        self, suppliers: Suppliers, principal: Principal, stranger: Principal
    ) -> None:
        made = await suppliers.make(principal)

        listed = await suppliers.queries.list_providers(stranger, ProviderFilter(), PageRequest())
        assert await suppliers.seen(stranger.tenant_id) == NOTHING
        assert listed.items == []
        with pytest.raises(ProviderNotFoundError):
            await suppliers.queries.get_provider(stranger, made.id)
        with pytest.raises(ProviderNotFoundError):
            await suppliers.accounts.get(stranger.tenant_id, made.id)

    async def test_a_grantee_sees_the_provider_and_never_its_key(
        self, suppliers: Suppliers, principal: Principal, stranger: Principal
    ) -> None:
        made = await suppliers.make(principal)
        async with acting_as(principal):
            _, first = await suppliers.service.grant(
                as_operator(principal), made.id, stranger.tenant_id
            )
        async with acting_as(principal):
            _, again = await suppliers.service.grant(
                as_operator(principal), made.id, stranger.tenant_id
            )
        shown = await suppliers.queries.get_provider(stranger, made.id)
        third = make_principal()

        assert (first, again) == (True, False)
        assert await suppliers.seen(stranger.tenant_id) == {
            "providers": 1,
            "provider_credentials": 0,
            "provider_grants": 1,
        }
        assert await suppliers.seen(third.tenant_id) == NOTHING
        assert shown == replace(
            made,
            base_url=None,
            api_version=None,
            description=None,
            reach=None,
            created_by=None,
            credential_set_at=None,
        )
        with pytest.raises(ProviderNotFoundError):
            await suppliers.accounts.get(stranger.tenant_id, made.id)
        with pytest.raises(ProviderNotFoundError):
            await suppliers.queries.list_grants(stranger, made.id, PageRequest())

    @pytest.mark.parametrize("end", ["revoke it", "delete the provider"])
    async def test_a_grant_ends_at_once(
        self, suppliers: Suppliers, principal: Principal, stranger: Principal, end: str
    ) -> None:
        made = await suppliers.make(principal)
        async with acting_as(principal):
            await suppliers.service.grant(as_operator(principal), made.id, stranger.tenant_id)
        async with acting_as(principal):
            if end == "revoke it":
                await suppliers.service.revoke(principal, made.id, stranger.tenant_id)
            else:
                await suppliers.service.delete(principal, made.id, check=anything)

        seen = await suppliers.seen(stranger.tenant_id)
        assert seen["providers"] == 0
        with pytest.raises(ProviderNotFoundError):
            await suppliers.queries.get_provider(stranger, made.id)

    async def test_a_grantee_changes_nothing(
        self, suppliers: Suppliers, principal: Principal, stranger: Principal
    ) -> None:
        made = await suppliers.make(principal)
        async with acting_as(principal):
            await suppliers.service.grant(as_operator(principal), made.id, stranger.tenant_id)

        service = suppliers.service
        acts = (
            lambda: service.revise(stranger, made.id, check=anything, status="disabled"),
            lambda: service.delete(stranger, made.id, check=anything),
            lambda: service.set_credential(stranger, made.id, KEY, check=anything),
            lambda: service.remove_credential(stranger, made.id, check=anything),
            lambda: service.grant(stranger, made.id, make_principal().tenant_id),
            lambda: service.revoke(stranger, made.id, stranger.tenant_id),
        )
        for act in acts:
            async with acting_as(stranger):
                with pytest.raises(ProviderNotFoundError):
                    await act()
        account = await suppliers.accounts.get(principal.tenant_id, made.id)
        assert account.key == KEY

    @pytest.mark.parametrize(
        "statement",
        [
            "INSERT INTO provider_credentials VALUES (:provider, :mine, 'x', now(), :mine)",
            "INSERT INTO provider_credentials VALUES (:provider, :theirs, 'x', now(), :mine)",
            "INSERT INTO provider_grants VALUES (:provider, :mine, :mine, :mine, now())",
            "INSERT INTO provider_grants VALUES (:provider, :mine, :theirs, :mine, now())",
        ],
    )
    async def test_the_database_refuses_rows_about_a_foreign_provider(
        self, suppliers: Suppliers, principal: Principal, stranger: Principal, statement: str
    ) -> None:
        made = await suppliers.make(principal, key=None)
        values = {
            "provider": made.id,
            "mine": stranger.tenant_id,
            "theirs": principal.tenant_id,
        }
        async with acting_as(stranger), suppliers.make_unit_of_work() as uow:
            with pytest.raises(DBAPIError):
                await uow.session.execute(text(statement), values)


class TestKeys:
    async def test_a_key_is_sealed_and_opens_for_a_call(
        self,
        suppliers: Suppliers,
        principal: Principal,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        made = await suppliers.make(principal)
        sealed = await superuser.fetchval("SELECT sealed FROM provider_credentials")
        account = await suppliers.accounts.get(principal.tenant_id, made.id)

        assert KEY.plain.encode() not in sealed
        assert KEY.plain not in repr(account)
        assert (account.key, account.base_url) == (KEY, "https://api.openai.com/v1")

    async def test_a_key_opens_in_no_other_row(
        self,
        suppliers: Suppliers,
        principal: Principal,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        first = await suppliers.make(principal)
        second = await suppliers.make(principal, "Another", key=SupplierKey("sk-other"))
        await superuser.execute(
            "UPDATE provider_credentials SET sealed = (SELECT sealed FROM provider_credentials"
            " WHERE provider_id = $1) WHERE provider_id = $2",
            first.id,
            second.id,
        )

        with pytest.raises(CredentialUnreadableError) as unreadable:
            await suppliers.accounts.get(principal.tenant_id, second.id)
        assert KEY.plain not in repr(unreadable.value)

    async def test_its_row_goes_with_the_address_and_with_the_provider(
        self, suppliers: Suppliers, principal: Principal
    ) -> None:
        moved = await suppliers.make(principal, "moved")
        gone = await suppliers.make(principal, "gone")
        async with acting_as(principal):
            answered = await suppliers.service.revise(
                principal, moved.id, check=anything, base_url="https://evil.example.com/v1"
            )
        account = await suppliers.accounts.get(principal.tenant_id, moved.id)
        async with acting_as(principal):
            await suppliers.service.delete(principal, gone.id, check=anything)

        assert answered.credential_set_at is None
        assert (account.base_url, account.key) == ("https://evil.example.com/v1", None)
        assert (await suppliers.seen(principal.tenant_id))["provider_credentials"] == 0
        with pytest.raises(ProviderNotFoundError):
            await suppliers.accounts.get(principal.tenant_id, gone.id)

    async def test_a_key_never_meets_an_address_that_it_was_not_set_for(
        self, suppliers: Suppliers, principal: Principal
    ) -> None:
        """Whoever sets a key and whoever moves the provider have both read the same revision."""
        evil = "https://evil.example.com/v1"
        for number in range(10):
            made = await suppliers.make(principal, f"n{number}", key=None)

            async def move(revision: int = made.revision, of: ProviderDetails = made) -> None:
                async with acting_as(principal):
                    await suppliers.service.revise(
                        principal, of.id, check=only(revision), base_url=evil
                    )

            async def set_key(revision: int = made.revision, of: ProviderDetails = made) -> None:
                async with acting_as(principal):
                    await suppliers.service.set_credential(
                        principal, of.id, KEY, check=only(revision)
                    )

            ends = await asyncio.gather(move(), set_key(), return_exceptions=True)
            account = await suppliers.accounts.get(principal.tenant_id, made.id)
            assert [type(end) for end in ends if end is not None] == [PreconditionFailedError]
            assert account.key is None or account.base_url != evil


class TestRaces:
    async def test_one_of_many_gets_a_name(
        self, suppliers: Suppliers, principal: Principal
    ) -> None:
        made = await asyncio.gather(
            *(suppliers.make(principal, key=None) for _ in range(5)), return_exceptions=True
        )
        refused = [each for each in made if isinstance(each, BaseException)]
        assert [type(each) for each in refused] == [ProviderNameTakenError] * 4

    async def test_one_of_two_is_renamed_to_it(
        self, suppliers: Suppliers, principal: Principal
    ) -> None:
        made = [await suppliers.make(principal, f"n{number}", key=None) for number in (1, 2)]

        async def rename(provider_id: ProviderId) -> None:
            async with acting_as(principal):
                await suppliers.service.revise(
                    principal, provider_id, check=anything, name=ProviderName("wanted")
                )

        ends = await asyncio.gather(*(rename(each.id) for each in made), return_exceptions=True)
        assert [type(end) for end in ends if end is not None] == [ProviderNameTakenError]

    async def test_a_deleted_ones_name_is_free(
        self, suppliers: Suppliers, principal: Principal
    ) -> None:
        made = await suppliers.make(principal)
        async with acting_as(principal):
            await suppliers.service.delete(principal, made.id, check=anything)
        assert (await suppliers.make(principal)).id != made.id

    async def test_a_tenant_never_has_one_too_many(
        self, suppliers: Suppliers, principal: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(use_cases, "MAX_PROVIDERS", 2)
        made = await asyncio.gather(
            *(suppliers.make(principal, f"n{number}", key=None) for number in range(5)),
            return_exceptions=True,
        )
        refused = [each for each in made if isinstance(each, BaseException)]
        assert [type(each) for each in refused] == [TooManyProvidersError] * 3

    async def test_pages_follow_one_another_over_own_and_granted(
        self, suppliers: Suppliers, principal: Principal, stranger: Principal
    ) -> None:
        wanted = [(await suppliers.make(principal, f"n{number}", key=None)).id for number in (1, 2)]
        granted = await suppliers.make(stranger, "theirs", key=None)
        async with acting_as(stranger):
            await suppliers.service.grant(as_operator(stranger), granted.id, principal.tenant_id)
        wanted.append(granted.id)

        found: list[ProviderId] = []
        after = None
        while len(found) < 4:
            page = await suppliers.queries.list_providers(
                principal, ProviderFilter(type="openai"), PageRequest(limit=1, after=after)
            )
            found += [each.id for each in page.items]
            after = page.next
            if after is None:
                break
        none = await suppliers.queries.list_providers(
            principal, ProviderFilter(status="disabled"), PageRequest(include_total=True)
        )
        assert found == wanted[::-1]
        assert (none.items, none.total) == ([], 0)


class TestLists:
    async def test_strangers_providers_are_not_looked_at(
        self,
        suppliers: Suppliers,
        principal: Principal,
        stranger: Principal,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        await suppliers.make(stranger, key=None)
        await superuser.execute(
            "INSERT INTO providers (id, tenant_id, name, type, base_url, reach, status, "
            "created_by, created_at, updated_at, revision) "
            "SELECT gen_random_uuid(), gen_random_uuid(), name, type, base_url, reach, "
            "status, created_by, created_at, updated_at, revision "
            "FROM providers, generate_series(1, 20000)"
        )
        await superuser.execute("ANALYZE providers")
        page = (principal.tenant_id, None, None, None, None, 51)

        async with suppliers.database.tenant(principal.tenant_id) as connection:
            plan = await connection.fetch(f"EXPLAIN (ANALYZE, TIMING off) {LIST_PROVIDERS}", *page)

        text = "\n".join(row[0] for row in plan)
        assert "Seq Scan on providers" not in text, text

    async def test_what_a_newer_release_knows_is_not_there(
        self,
        suppliers: Suppliers,
        principal: Principal,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        newer = await suppliers.make(principal, "newer")
        older = await suppliers.make(principal, "older")
        await superuser.execute("UPDATE providers SET type = 'newer' WHERE id = $1", newer.id)

        listed = await suppliers.queries.list_providers(
            principal, ProviderFilter(), PageRequest(include_total=True)
        )
        assert [each.id for each in listed.items] == [older.id]
        assert listed.total == 1
        with pytest.raises(ProviderNotFoundError):
            await suppliers.queries.get_provider(principal, newer.id)
        with pytest.raises(ProviderNotFoundError):
            await suppliers.accounts.get(principal.tenant_id, newer.id)
        async with acting_as(principal):
            with pytest.raises(ProviderNotFoundError):
                await suppliers.service.delete(principal, newer.id, check=anything)


class TestTenantsThatMayNotAct:
    """A suspended tenant may come back; a closed one does not."""

    @pytest.fixture(autouse=True)
    async def tenant(self, superuser: Superuser, principal: Principal) -> None:
        await superuser.execute(
            "INSERT INTO tenants (id, slug, name, status) VALUES ($1, 'ours', 'Ours', 'active')",
            principal.tenant_id,
        )

    async def set_status(self, superuser: Superuser, tenant_id: TenantId, status: str) -> None:
        await superuser.execute("UPDATE tenants SET status = $1 WHERE id = $2", status, tenant_id)

    @pytest.mark.parametrize("status", ["suspended", "deleted"])
    async def test_their_suppliers_are_not_called(
        self, suppliers: Suppliers, principal: Principal, superuser: Superuser, status: str
    ) -> None:
        made = await suppliers.make(principal)
        watched = WatchedProvider(id=made.id, tenant_id=principal.tenant_id)
        watch = PostgresWatchLedger(superuser, seals=SEALS, events=Told())
        now = SystemClock().now()
        before = list(await watch.list_due(checked_before=now, limit=10))
        await watch.get_account(watched)
        await self.set_status(superuser, principal.tenant_id, status)

        assert before == [watched]
        assert list(await watch.list_due(checked_before=now, limit=10)) == []
        with pytest.raises(ProviderNotFoundError):
            await watch.get_account(watched)
        with pytest.raises(ProviderNotFoundError):
            await suppliers.accounts.get(principal.tenant_id, made.id)

    @pytest.mark.parametrize("status", ["suspended", "deleted"])
    async def test_a_closed_tenants_keys_are_dropped(
        self,
        suppliers: Suppliers,
        principal: Principal,
        superuser: Superuser,
        tmp_path: Path,
        status: str,
    ) -> None:
        made = await suppliers.make(principal)
        await suppliers.make(make_principal())
        await self.set_status(superuser, principal.tenant_id, status)
        told = Told()
        collection = CollectionService(
            ledger=PostgresCollectionLedger(superuser, events=told),
            parts=CollectableParts(DurableObjects(tmp_path.as_uri())),
            clock=SystemClock(),
            unused_grace=timedelta(0),
            keep_deleted=timedelta(0),
        )
        dropped = [(await collection.run(seconds=5)).keys for _ in range(2)]

        left = 1 if status == "deleted" else 2
        assert dropped == [2 - left, 0]
        assert await superuser.fetchval("SELECT count(*) FROM provider_credentials") == left
        assert [(scope.action, scope.tenant_id, scope.resource_id) for scope in told.scopes] == [
            ("provider.credential_removed", principal.tenant_id, str(made.id))
        ] * (2 - left)
