import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count

import pytest
from starlette.types import Message

from maas.model.application.ports import TooManyTransfersError
from maas.model.application.transfers import (
    MAX_TRANSFERS_EACH,
    TooManyOwnTransfersError,
    TransferSlots,
)
from maas.model.infrastructure.buffers import MAX_BUFFERED_BYTES, MemoryBudget
from maas.model.interface import pace as pace_module
from maas.model.interface.pace import LEAST_BYTES, Pace, PacedResponse
from maas.shared.domain.call import serving
from maas.shared.domain.errors import SlowRequestError
from maas.shared.domain.ids import AccountId, TenantId, new_id
from maas.shared.infrastructure.settings import StorageSettings
from tests.fakes.edge import make_principal
from tests.fakes.recorder import make_call

ADA, BOB, EVE = AccountId(new_id()), AccountId(new_id()), AccountId(new_id())
OURS, OTHERS = TenantId(new_id()), TenantId(new_id())


class TestTransferSlots:
    def test_everybody_has_as_many(self) -> None:
        slots = TransferSlots(limit=2)

        with ExitStack() as stack:
            for account in (ADA, ADA, BOB):
                stack.enter_context(slots.holding(account))
            with pytest.raises(TooManyOwnTransfersError) as caught, slots.holding(ADA):
                pass

        assert caught.value.retry_after is not None

    def test_one_that_ends_makes_room(self) -> None:
        slots = TransferSlots(limit=1)

        for _ in range(3):
            with slots.holding(ADA):
                pass


class TestMemoryBudget:
    def test_grows_with_what_arrives_and_gives_all_of_it_back(self) -> None:
        budget = MemoryBudget(10)

        with budget.growing() as grow:
            for size in (0, 4, 3, 9):
                grow(size)
            with pytest.raises(TooManyTransfersError), budget.holding(2):
                pass
            with pytest.raises(TooManyTransfersError):
                grow(11)
            with budget.holding(1):
                grow(9)

        with budget.holding(10):
            pass

    def test_who_holds_much_leaves_others_some(self) -> None:
        budget = MemoryBudget(32)

        with ExitStack() as stack:
            assert take_all(stack, budget, ADA) == 16
            assert take_all(stack, budget, BOB) == 4
            assert take_all(stack, budget, ADA) == 0
            assert take_all(stack, budget, EVE, tenant=OTHERS) == 6
            hold(stack, budget, None, 6)

        with ExitStack() as stack:
            assert take_all(stack, budget, BOB) == 16

    def test_no_number_of_accounts_makes_one_tenant_starve_another(self) -> None:
        budget = MemoryBudget(3 * 1024)

        with ExitStack() as stack:
            many = [take_all(stack, budget, AccountId(new_id())) for _ in range(100)]
            others = [
                take_all(stack, budget, AccountId(new_id()), tenant=TenantId(new_id()))
                for _ in range(3)
            ]

        assert sum(many) <= 2 * 1024
        assert others == [512, 256, 128]

    def test_large_files_of_one_caller_fit_as_many_as_it_may_have(self) -> None:
        part_bytes = StorageSettings().part_bytes

        with ExitStack() as stack:
            budget = MemoryBudget(MAX_BUFFERED_BYTES)
            for _ in range(MAX_TRANSFERS_EACH):
                hold(stack, budget, ADA, 2 * part_bytes)


def hold(
    stack: ExitStack,
    budget: MemoryBudget,
    account: AccountId | None,
    size: int,
    *,
    tenant: TenantId = OURS,
) -> None:
    """Have the account hold so many bytes; no account is a task of ours."""
    call = make_call()
    if account is not None:
        call.act_as(replace(make_principal(), account_id=account, tenant_id=tenant))
    with serving(call):
        stack.enter_context(budget.holding(size))


def take_all(
    stack: ExitStack, budget: MemoryBudget, account: AccountId, *, tenant: TenantId = OURS
) -> int:
    """Have the account hold whatever it gets, byte by byte; tell how much that was."""
    for taken in count():
        try:
            hold(stack, budget, account, 1, tenant=tenant)
        except TooManyTransfersError:
            return taken
    raise AssertionError


class TestPace:
    async def test_silence_ends_the_transfer(self) -> None:
        pace = Pace(0.05)

        with pytest.raises(SlowRequestError):
            async with pace.waiting():
                await asyncio.sleep(5)

    async def test_a_drip_ends_it_as_well(self) -> None:
        pace, count = Pace(0.1), 0

        async def drip() -> None:
            nonlocal count
            async with pace.waiting():
                await asyncio.sleep(0.02)
            pace.moved(1)
            count += 1
            await drip()

        with pytest.raises(SlowRequestError):
            await drip()

        assert count < 6

    async def test_enough_bytes_begin_a_new_window(self) -> None:
        pace = Pace(0.1)

        for _ in range(8):
            async with pace.waiting():
                await asyncio.sleep(0.04)
            pace.moved(LEAST_BYTES // 2)

    async def test_our_own_work_does_not_count(self) -> None:
        pace = Pace(0.05)

        for _ in range(3):
            async with pace.waiting():
                await asyncio.sleep(0)
            await asyncio.sleep(0.04)


class TestPacedResponse:
    async def test_a_caller_who_takes_nothing_is_let_go(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pace_module, "DOWNLOAD_SECONDS", 0.05)
        is_closed = False

        async def body() -> AsyncIterator[bytes]:
            nonlocal is_closed
            try:
                while True:
                    yield bytes(LEAST_BYTES)
            finally:
                is_closed = True

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        chunks = body()
        with pytest.raises(SlowRequestError):
            await PacedResponse(chunks)({"type": "http"}, receive, send)
        await chunks.aclose()  # type: ignore[attr-defined]  # it is a generator

        assert is_closed
