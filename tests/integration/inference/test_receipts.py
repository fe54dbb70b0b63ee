"""The receipt of a call is read back from the trail, with its proof and what was booked."""

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import pytest

from maas.audit.domain.proof import find_fault
from maas.audit.flush_wiring import build_flush
from maas.audit.infrastructure.outbox import keep_in_outbox
from maas.audit.infrastructure.recorded import MOST, PostgresRecordedEvents
from maas.audit.infrastructure.signing import is_signed_by
from maas.audit.public import AuditScope
from maas.audit.wiring import build_event_composer
from maas.inference.application.metering import Meter
from maas.inference.application.receipts import ReceiptNotFoundError, ReceiptService
from maas.inference.interface.receipt_schemas import ReceiptRead
from maas.shared.domain.call import current_call
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from maas.user.infrastructure.booking_queries import PostgresBookings
from maas.user.public import Payer
from tests.factories.calls import make_ask
from tests.integration.inference.test_metering import (
    away,
    begin,
    clock,
    expire,
    meter,
    ours,
    payer,
    recorder,
    replays,
    settle,
    trail,
)
from tests.integration.user.charging import Superuser, make_tenant

pytestmark = pytest.mark.integration

__all__ = ["away", "clock", "meter", "payer", "recorder", "replays", "trail"]

Flush = Callable[[], Awaitable[None]]
Expire = Callable[[], Awaitable[None]]


@pytest.fixture
def receipts(database: Database) -> ReceiptService:
    return ReceiptService(
        events=PostgresRecordedEvents(database), bookings=PostgresBookings(database)
    )


@pytest.fixture
async def flush(settings: Settings, superuser: Superuser) -> AsyncIterator[Flush]:
    context = build_flush(settings)

    async def run() -> None:
        # It leaves to the stream what is younger than a second.
        await superuser.execute("UPDATE audit_outbox SET created_at = now() - interval '1 minute'")
        await context.service.run()

    yield run
    await context.close()


@pytest.fixture
def left(settings: Settings, superuser: Superuser) -> Expire:
    async def run() -> None:
        await expire(superuser, settings)

    return run


def caller(account_id: UUID, *permissions: str, tenant_id: TenantId) -> Principal:
    return Principal(
        kind="account",
        account_id=AccountId(account_id),
        tenant_id=tenant_id,
        username="ada",
        permissions=frozenset(permissions),
        version=1,
    )


def own(payer: Payer) -> Principal:
    return caller(payer.account_id, "inference:call", tenant_id=payer.tenant_id)


class TestReceipts:
    async def test_it_tells_all_and_proves_it(
        self, meter: Meter, payer: Payer, receipts: ReceiptService, flush: Flush
    ) -> None:
        charge = await begin(meter, payer)
        await settle(meter, charge)
        await flush()

        receipt = await receipts.get(own(payer), "r-1")
        read = ReceiptRead.of(receipt)

        assert read.proof is not None
        assert read.booking is not None
        assert read.target is not None
        assert read.price is not None
        keys = {read.proof.checkpoint.key_id: bytes.fromhex(read.proof.public_key)}
        assert receipt.proof is not None
        assert find_fault(receipt.proof, keys=keys, is_signed=is_signed_by) is None
        assert (read.proof.event_id, read.proof.seq) == (read.event_id, read.seq)
        assert (read.deployment.id, read.deployment.name) == (charge.route.deployment_id, "gemma")
        assert (read.actor_id, read.api_key_id) == (payer.account_id, payer.api_key_id)
        assert (read.target.provider_name, read.target.digest) == ("acme", "ab" * 32)
        assert (read.price.input, read.price.output, read.price.currency) == ("2.5", "10", "USD")
        assert read.decision == "the only one"
        assert read.first_byte_ms == 12
        assert (read.booking.input_tokens, read.booking.cached_tokens) == (80, 20)
        assert (read.booking.output_tokens, read.booking.reasoning_tokens) == (30, 5)
        assert (read.booking.cost_nanos, read.booking.is_estimated) == (500_000, False)

    async def test_of_a_call_whose_process_went_it_tells_what_was_booked(
        self, meter: Meter, payer: Payer, receipts: ReceiptService, flush: Flush, left: Expire
    ) -> None:
        await begin(meter, payer)
        await left()
        await flush()

        read = ReceiptRead.of(await receipts.get(own(payer), "r-1"))

        assert (read.outcome, read.reason, read.target) == ("failure", "lease-expired", None)
        assert read.deployment.name == "gemma"
        assert read.booking is not None
        assert (read.booking.output_tokens, read.booking.is_estimated) == (300, True)
        assert read.proof is not None

    async def test_of_a_kept_answer_it_tells_whose_it_was(
        self, meter: Meter, payer: Payer, receipts: ReceiptService, flush: Flush
    ) -> None:
        await meter.book_hit(
            payer=payer, route=ours(), ask=make_ask(), request_id="r-1", answer_of="r-0"
        )
        await flush()

        read = ReceiptRead.of(await receipts.get(own(payer), "r-1"))

        assert (read.is_cache_hit, read.answer_of) == (True, "r-0")
        assert read.booking is not None
        assert (read.booking.requests, read.booking.cost_nanos) == (1, 0)

    async def test_before_the_flush_it_is_not_there_yet(
        self, meter: Meter, payer: Payer, receipts: ReceiptService
    ) -> None:
        await settle(meter, await begin(meter, payer))

        with pytest.raises(ReceiptNotFoundError) as refusal:
            await receipts.get(own(payer), "r-1")

        assert refusal.value.retry_after is not None

    async def test_everybody_reads_their_own_and_finance_the_tenants(
        self,
        meter: Meter,
        payer: Payer,
        receipts: ReceiptService,
        flush: Flush,
        superuser: Superuser,
    ) -> None:
        await settle(meter, await begin(meter, payer))
        await flush()
        other = UUID(int=99)
        tenant_id = await make_tenant(superuser)

        finance = caller(other, "usage:read", tenant_id=payer.tenant_id)
        assert (await receipts.get(finance, "r-1")).event.actor_id == payer.account_id
        for stranger in (
            caller(other, "inference:call", tenant_id=payer.tenant_id),
            caller(payer.account_id, "usage:read", "inference:call", tenant_id=tenant_id),
        ):
            with pytest.raises(ReceiptNotFoundError):
                await receipts.get(stranger, "r-1")

    async def test_refusals_under_its_id_do_not_hide_it(
        self,
        meter: Meter,
        payer: Payer,
        receipts: ReceiptService,
        flush: Flush,
        database: Database,
    ) -> None:
        charge = await begin(meter, payer)
        await settle(meter, charge)
        scope = AuditScope("inference.completed", "failure", "already-processed")
        composer = build_event_composer(SystemClock())
        refused = [composer.compose(scope, current_call()) for _ in range(MOST + 1)]
        await keep_in_outbox(database, *refused)
        await flush()

        receipt = await receipts.get(own(payer), "r-1")

        assert receipt.event.after["hold_id"] == str(charge.hold.id)

    async def test_of_many_calls_of_one_id_it_is_the_last_ones(
        self, meter: Meter, payer: Payer, receipts: ReceiptService, flush: Flush
    ) -> None:
        charges = [await begin(meter, payer) for _ in range(3)]
        for charge in charges:
            await settle(meter, charge)
        await flush()

        receipt = await receipts.get(own(payer), "r-1")

        assert receipt.event.after["hold_id"] == str(charges[-1].hold.id)
