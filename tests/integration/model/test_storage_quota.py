"""Storage is held before the first byte, charged with the file, and given back when it goes."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from typing_extensions import override

from maas.audit.public import AuditScope, ComposedEvent
from maas.model.application.ports import BodyCutOffError
from maas.model.application.storage import LEASE
from maas.model.domain.file import FilePath
from maas.model.domain.model import ModelNotFoundError
from maas.model.domain.resumable import (
    SenderRefusedError,
    UploadNotFoundError,
    UploadPayerError,
)
from maas.model.infrastructure.bookings import book_due
from maas.model.infrastructure.collection import open_ledger
from maas.shared.domain.ids import ApiKeyId, new_id
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.settings import Settings
from maas.user.infrastructure.quota_budgets import PostgresBudgets
from maas.user.infrastructure.quota_expiry import expire_holds
from maas.user.public import Amounts, Hold, Payer, QuotaExceededError, UsageFigures
from maas.worker_services import book_storage, open_resources
from tests.integration.model.conftest import PART_BYTES, Registry, acting_as, make_principal
from tests.integration.model.test_files import CONTENT, Draft, incoming, make_draft
from tests.integration.model.test_uploads import Sending
from tests.integration.user.charging import (
    EVENTS,
    Superuser,
    balance,
    limit,
    make_tenant,
    miscounted,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

ROOM = 3 * len(CONTENT)
SIZE = len(CONTENT)
BOOKED_OVER = """
    SELECT array_agg(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = 'maas_app'
      AND query LIKE '%quota_book_storage%'
"""


@pytest.fixture
async def principal(superuser: Superuser) -> Principal:
    return make_principal(await make_tenant(superuser))


@pytest.fixture
async def quota(superuser: Superuser, principal: Principal) -> UUID:
    return await limit(
        superuser, principal.tenant_id, "storage", ROOM, tenant_id=principal.tenant_id
    )


@pytest.fixture
async def draft(registry: Registry, principal: Principal, quota: UUID) -> Draft:
    del quota
    return await make_draft(registry, principal)


@pytest.fixture
def sending(registry: Registry, draft: Draft, principal: Principal) -> Sending:
    return Sending(registry, draft, principal)


@pytest.fixture(autouse=True)
async def exact(superuser: Superuser) -> AsyncIterator[None]:
    """Whatever a test does, each balance is what the ledger and the holds say."""
    yield
    assert await miscounted(superuser) == []


async def sent_while(change: Callable[[], object]) -> AsyncIterator[bytes]:
    """Send all of it, and have something happen before the last byte."""
    yield CONTENT[:-1]
    change()
    yield CONTENT[-1:]


def end_account(draft: Draft) -> None:
    draft.registry.members.left.add(draft.principal.account_id)


def end_right(draft: Draft) -> None:
    draft.registry.members.rights = frozenset({"model:read"})


async def never_read() -> AsyncIterator[bytes]:
    yield b""
    message = "the body was read"
    raise AssertionError(message)


class TestPut:
    async def test_a_file_is_charged_for(
        self, draft: Draft, superuser: Superuser, quota: UUID
    ) -> None:
        await draft.take(incoming())

        assert await balance(superuser, quota) == (SIZE, 0)
        assert await superuser.fetchval("SELECT count(*) FROM storage_bookings") == 0
        row = await superuser.fetchrow("SELECT model, requests, storage_bytes FROM usage")
        assert row is not None
        assert tuple(row) == ("storage", 0, SIZE)

    async def test_what_is_not_covered_is_refused_before_it_is_read(
        self, draft: Draft, superuser: Superuser, quota: UUID
    ) -> None:
        with pytest.raises(QuotaExceededError):
            await draft.take(incoming(bytes(ROOM + 1), body=never_read()))

        assert await balance(superuser, quota) == (0, 0)

    async def test_a_body_nobody_announced_is_covered_as_it_comes(
        self, draft: Draft, superuser: Superuser, quota: UUID
    ) -> None:
        await draft.take(incoming(size=None))
        with pytest.raises(QuotaExceededError):
            await draft.take(incoming(bytes(ROOM), size=None, path=FilePath("b")))

        assert await balance(superuser, quota) == (SIZE, 0)

    async def test_a_file_that_fails_takes_nothing(
        self, draft: Draft, superuser: Superuser, quota: UUID
    ) -> None:
        with pytest.raises(BodyCutOffError):
            await draft.take(incoming(size=SIZE + 1))

        assert await balance(superuser, quota) == (0, 0)

    @pytest.mark.parametrize("end", [end_account, end_right])
    async def test_who_may_write_nothing_any_more_by_the_last_byte_gives_no_file(
        self, draft: Draft, superuser: Superuser, quota: UUID, end: Callable[[Draft], None]
    ) -> None:
        with pytest.raises(SenderRefusedError):
            await draft.take(incoming(body=sent_while(partial(end, draft))))

        assert not any(path.is_file() for path in draft.registry.stored())
        assert await draft.status() == ("pending", 0)
        assert await balance(superuser, quota) == (0, 0)

    async def test_equal_bytes_are_charged_for_each_file(
        self, draft: Draft, superuser: Superuser, quota: UUID
    ) -> None:
        await draft.take(incoming())
        await draft.take(incoming(path=FilePath("again")))

        assert await balance(superuser, quota) == (2 * SIZE, 0)

    @pytest.mark.parametrize("end", [end_account, end_right])
    async def test_of_an_upload_neither(
        self,
        sending: Sending,
        superuser: Superuser,
        quota: UUID,
        settings: Settings,
        end: Callable[[Draft], None],
    ) -> None:
        upload = await sending.begin()

        with pytest.raises(SenderRefusedError):
            await sending.send(upload, CONTENT, body=sent_while(partial(end, sending.draft)))

        await book_due(settings.database, sending.registry.budgets)
        assert (await sending.look(upload)).state == "failed"
        assert sending.files() == 0
        assert await sending.draft.status() == ("pending", 0)
        assert await balance(superuser, quota) == (0, 0)

    async def test_who_manages_models_no_longer_gives_a_private_one_no_file(
        self, draft: Draft, registry: Registry, superuser: Superuser, quota: UUID
    ) -> None:
        manager = make_principal(draft.principal.tenant_id)
        async with acting_as(draft.principal):
            await registry.models.revise(
                draft.principal, draft.model_id, check=lambda _: None, visibility="private"
            )

        # What the request began with was `model:*`; by now it is no more than `model:write`.
        with pytest.raises(ModelNotFoundError):
            await replace(draft, principal=manager).take(incoming())

        assert await balance(superuser, quota) == (0, 0)


class TestGivingBack:
    async def test_a_file_that_goes_gives_back_what_it_took_once(
        self, draft: Draft, superuser: Superuser, quota: UUID, settings: Settings
    ) -> None:
        await draft.take(incoming())
        async with acting_as(draft.principal):
            await draft.registry.files.remove(
                draft.model_id, draft.name, incoming().path, check=lambda _: None
            )

        first = await book_due(settings.database, draft.registry.budgets)
        second = await book_due(settings.database, draft.registry.budgets)

        assert (first, second) == (1, 0)
        assert await balance(superuser, quota) == (0, 0)

    async def test_a_worker_keeps_what_it_tells_it_over(
        self, draft: Draft, superuser: Superuser, quota: UUID, settings: Settings
    ) -> None:
        kept = open_resources(settings)
        opened = []
        for content in (b"12", b"345"):
            await draft.take(incoming(content))
            await draft.take(incoming(b""))
            told = await book_storage(settings, kept)
            opened.append(await superuser.fetchval(BOOKED_OVER))
            assert told == 1
        await kept.close()

        assert await balance(superuser, quota) == (0, 0)
        assert len(opened[0]) == 1
        assert opened[0] == opened[1]

    async def test_what_is_booked_twice_counts_once(
        self, draft: Draft, superuser: Superuser, quota: UUID
    ) -> None:
        await draft.take(incoming())
        booking_id, at = new_id(), await superuser.fetchval("SELECT now()")
        for _ in range(2):
            await draft.registry.budgets.book_storage(
                Payer.of(draft.principal),
                -5,
                booking_id=booking_id,
                at=at,
                label="storage",
                request_id="r",
            )

        assert await balance(superuser, quota) == (SIZE - 5, 0)

    async def test_a_file_that_is_replaced_gives_back_its_own_size(
        self, draft: Draft, superuser: Superuser, quota: UUID, settings: Settings
    ) -> None:
        await draft.take(incoming())
        await draft.take(incoming(b"small"))

        await book_due(settings.database, draft.registry.budgets)

        assert await balance(superuser, quota) == (5, 0)

    async def test_a_version_gives_back_what_its_files_took(
        self, draft: Draft, superuser: Superuser, quota: UUID, settings: Settings
    ) -> None:
        await draft.take(incoming())
        await draft.take(incoming(b"small", path=FilePath("b")))
        async with acting_as(draft.principal):
            await draft.registry.versions.delete(draft.model_id, draft.name, check=lambda _: None)

        await book_due(settings.database, draft.registry.budgets)

        assert await balance(superuser, quota) == (0, 0)


class Told:
    """Takes the collection's events."""

    def __init__(self) -> None:
        self.scopes: list[AuditScope] = []

    async def write(
        self,
        connection: Superuser,  # noqa: ARG002  the port's
        scopes: Sequence[AuditScope],
    ) -> None:
        self.scopes += scopes


class Deaf(PostgresBudgets):
    """Holds what it is asked to, and is never told more: its process is dead by then."""

    @override
    async def settle(
        self,
        hold: Hold,
        used: UsageFigures,
        *,
        is_estimated: bool = False,
        event: ComposedEvent | None = None,
    ) -> bool:
        return False

    @override
    async def release(self, hold: Hold) -> None:
        return


async def take_and_die(draft: Draft) -> None:
    alive = draft.registry.budgets
    draft.registry.budgets = Deaf(draft.registry.database)
    await draft.take(incoming())
    await draft.registry.budgets.close()
    draft.registry.budgets = alive


class TestDying:
    """As if the process had been killed between any two of the steps."""

    async def test_a_file_without_its_settlement_is_settled_by_the_task(
        self, draft: Draft, superuser: Superuser, quota: UUID, settings: Settings
    ) -> None:
        await take_and_die(draft)
        held = await balance(superuser, quota)

        await book_due(settings.database, draft.registry.budgets)

        assert held == (0, SIZE)
        assert await balance(superuser, quota) == (SIZE, 0)

    async def test_a_hold_nobody_settles_ends_in_nothing(
        self, draft: Draft, superuser: Superuser, quota: UUID, settings: Settings
    ) -> None:
        await draft.registry.budgets.reserve(
            Payer.of(draft.principal),
            Amounts(requests=0, storage_bytes=SIZE),
            lease=LEASE,
            model="storage",
            request_id="r",
        )
        held = await balance(superuser, quota)
        await superuser.execute("UPDATE quota_holds SET lease_until = now() - interval '1 s'")

        await expire_holds(settings.database, events=EVENTS)

        assert held == (0, SIZE)
        assert await balance(superuser, quota) == (0, 0)

    async def test_a_file_settled_after_its_lease_is_charged_for_all_the_same(
        self, draft: Draft, superuser: Superuser, quota: UUID, settings: Settings
    ) -> None:
        await take_and_die(draft)
        await superuser.execute("UPDATE quota_holds SET lease_until = now() - interval '1 s'")
        await expire_holds(settings.database, events=EVENTS)
        lost = await balance(superuser, quota)

        for _ in range(2):
            await book_due(settings.database, draft.registry.budgets)

        assert lost == (0, 0)
        assert await balance(superuser, quota) == (SIZE, 0)


class TestUploads:
    async def test_room_is_held_from_the_start_and_charged_at_the_end(
        self, sending: Sending, superuser: Superuser, quota: UUID
    ) -> None:
        upload = await sending.begin()
        begun = await balance(superuser, quota)
        await sending.send(upload, CONTENT)

        assert begun == (0, SIZE)
        assert await balance(superuser, quota) == (SIZE, 0)

    async def test_an_upload_that_is_not_covered_is_not_begun(
        self, sending: Sending, superuser: Superuser
    ) -> None:
        with pytest.raises(QuotaExceededError):
            await sending.begin(ROOM + 1)

        assert await superuser.fetchval("SELECT count(*) FROM uploads") == 0

    async def test_an_upload_that_is_ended_holds_nothing(
        self, sending: Sending, superuser: Superuser, quota: UUID, settings: Settings
    ) -> None:
        upload = await sending.begin()
        await sending.send(upload, CONTENT[:PART_BYTES])
        await sending.end(upload)

        await book_due(settings.database, sending.registry.budgets)

        assert await balance(superuser, quota) == (0, 0)

    async def test_an_upload_that_expires_holds_nothing(
        self, sending: Sending, superuser: Superuser, quota: UUID, settings: Settings
    ) -> None:
        upload = await sending.begin()
        await sending.send(upload, CONTENT[:PART_BYTES])
        later = SystemClock().now() + timedelta(days=2)
        told = Told()
        async with open_ledger(settings.database, events=told) as ledger:
            assert ledger is not None
            ended = await ledger.end_uploads(expired_before=later)

        await book_due(settings.database, sending.registry.budgets)

        assert ended == 1
        assert [scope.action for scope in told.scopes] == ["model_upload.expired"]
        assert await balance(superuser, quota) == (0, 0)

    async def test_what_is_put_together_is_charged_for_once(
        self, sending: Sending, superuser: Superuser, quota: UUID, settings: Settings
    ) -> None:
        first = await sending.begin(10, partial=True)
        second = await sending.begin(SIZE - 10, partial=True)
        await sending.send(first, CONTENT[:10])
        await sending.send(second, CONTENT[10:])
        held = await balance(superuser, quota)

        await sending.concatenate(first, second)
        await book_due(settings.database, sending.registry.budgets)

        assert held == (0, SIZE)
        assert await balance(superuser, quota) == (SIZE, 0)

    async def test_what_is_begun_again_takes_the_room_of_the_first(
        self, sending: Sending, superuser: Superuser, quota: UUID, settings: Settings
    ) -> None:
        first = await sending.begin(ROOM)
        await sending.send(first, CONTENT)

        again = await sending.begin(ROOM)
        await book_due(settings.database, sending.registry.budgets)

        assert await balance(superuser, quota) == (0, ROOM)
        with pytest.raises(UploadNotFoundError):
            await sending.look(first)
        assert (await sending.look(again)).offset == 0

    async def test_what_would_not_fit_all_the_same_ends_nothing(
        self, sending: Sending, superuser: Superuser, quota: UUID
    ) -> None:
        first = await sending.begin(SIZE)

        with pytest.raises(QuotaExceededError):
            await sending.begin(ROOM + 1)

        assert (await sending.look(first)).state == "uploading"
        assert await balance(superuser, quota) == (0, SIZE)

    async def test_only_parts_of_one_payer_are_put_together(
        self, sending: Sending, superuser: Superuser, quota: UUID
    ) -> None:
        keyed = replace(sending.principal, api_key_id=ApiKeyId(new_id()))
        with_key = Sending(sending.registry, sending.draft, keyed)
        first = await sending.begin(10, partial=True)
        second = await with_key.begin(SIZE - 10, partial=True)
        await sending.send(first, CONTENT[:10])
        await with_key.send(second, CONTENT[10:])

        for one in (sending, with_key):
            with pytest.raises(UploadPayerError):
                await one.concatenate(first, second)

        assert (await sending.look(first)).kind == (await sending.look(second)).kind == "partial"
        assert await balance(superuser, quota) == (0, SIZE)

    async def test_going_on_renews_the_lease(self, sending: Sending, superuser: Superuser) -> None:
        upload = await sending.begin()
        await superuser.execute("UPDATE quota_holds SET lease_until = now() + interval '1 s'")

        await sending.send(upload, CONTENT[:10])

        left: timedelta = await superuser.fetchval("SELECT lease_until - now() FROM quota_holds")
        assert left > LEASE
