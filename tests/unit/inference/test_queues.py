"""Places at a target: in order, in time, and exact whoever leaves when."""

import asyncio
from uuid import UUID

import pytest

from maas.inference.application.queues import NoPlaceError, Places
from maas.shared.domain.ids import TenantId
from tests.factories.routes import seeded

ADA, BOB, CY = (TenantId(UUID(int=number)) for number in (1, 2, 3))


def make_places(limit: int | None) -> Places:
    places = Places()
    places.limit_to(limit)
    return places


async def until_waiting(places: Places, count: int) -> None:
    while places.waiting != count:  # noqa: ASYNC110  some turns of the loop, and nothing tells
        await asyncio.sleep(0)


async def test_without_a_limit_everybody_has_a_place() -> None:
    places = make_places(None)

    for _ in range(1000):
        await places.take(max_waiting=0, seconds=0)

    assert (places.taken, places.waiting) == (1000, 0)


async def test_who_came_first_is_first() -> None:
    places, order = make_places(1), list[int]()
    await places.take(max_waiting=0, seconds=0)

    async def come(number: int) -> None:
        await places.take(max_waiting=9, seconds=9)
        order.append(number)
        places.leave()

    callers = []
    for number in range(5):
        callers.append(asyncio.create_task(come(number)))
        await until_waiting(places, number + 1)
    places.leave()
    await asyncio.gather(*callers)

    assert order == [0, 1, 2, 3, 4]
    assert places.is_idle


async def test_tenants_have_their_turns_one_after_another() -> None:
    places, order = make_places(1), list[TenantId]()
    await places.take(max_waiting=0, seconds=0)

    async def come(tenant_id: TenantId) -> None:
        await places.take(max_waiting=9, seconds=9, tenant_id=tenant_id)
        order.append(tenant_id)
        places.leave()

    callers = []
    for number, tenant_id in enumerate([ADA, ADA, ADA, BOB, CY, BOB]):
        callers.append(asyncio.create_task(come(tenant_id)))
        await until_waiting(places, number + 1)
    places.leave()
    await asyncio.gather(*callers)

    assert order == [ADA, BOB, CY, ADA, BOB, ADA]
    assert places.is_idle


async def test_whoever_fills_the_queue_makes_room_for_others_until_all_have_as_much() -> None:
    places = make_places(1)
    await places.take(max_waiting=0, seconds=0)

    def come(tenant_id: TenantId) -> asyncio.Task[None]:
        return asyncio.create_task(places.take(max_waiting=4, seconds=9, tenant_id=tenant_id))

    many = [come(ADA) for _ in range(4)]
    await until_waiting(places, 4)
    few = [come(BOB) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    ended = {each for each in [*many, *few] if each.done()}

    # The last of many, one after another, and whoever would have had more than they.
    assert ended == {many[2], many[3], few[2]}
    assert all(isinstance(each.exception(), NoPlaceError) for each in ended)
    assert places.waiting == 4
    for each in [*many, *few]:
        each.cancel()
    await asyncio.wait([*many, *few])
    assert (places.taken, places.waiting) == (1, 0)


async def test_nobody_slips_in_before_those_who_wait() -> None:
    places = make_places(1)
    await places.take(max_waiting=0, seconds=0)
    waiting = asyncio.create_task(places.take(max_waiting=9, seconds=9))
    await until_waiting(places, 1)

    places.leave()

    assert not places.has_place
    with pytest.raises(NoPlaceError) as refused:
        await places.take(max_waiting=0, seconds=9)
    assert not refused.value.is_late
    await waiting
    assert places.taken == 1


async def test_a_full_queue_sends_away_at_once() -> None:
    places = make_places(1)
    await places.take(max_waiting=0, seconds=0)
    waiting = asyncio.create_task(places.take(max_waiting=1, seconds=9))
    await until_waiting(places, 1)

    with pytest.raises(NoPlaceError) as refused:
        await places.take(max_waiting=1, seconds=9)

    assert not refused.value.is_late
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (places.taken, places.waiting) == (1, 0)


async def test_who_waited_long_enough_leaves_the_queue() -> None:
    places = make_places(1)
    await places.take(max_waiting=0, seconds=0)

    with pytest.raises(NoPlaceError) as refused:
        await places.take(max_waiting=1, seconds=0.01)

    assert refused.value.is_late
    assert (places.taken, places.waiting) == (1, 0)


async def test_a_place_handed_to_who_leaves_in_that_moment_goes_on_to_the_next() -> None:
    places = make_places(1)
    await places.take(max_waiting=0, seconds=0)
    leaver = asyncio.create_task(places.take(max_waiting=9, seconds=9))
    await until_waiting(places, 1)
    stayer = asyncio.create_task(places.take(max_waiting=9, seconds=9))
    await until_waiting(places, 2)

    places.leave()
    leaver.cancel()
    await stayer

    await asyncio.wait([leaver])
    assert leaver.cancelled()
    assert (places.taken, places.waiting) == (1, 0)


async def test_more_places_let_in_those_who_wait_and_fewer_send_nobody_away() -> None:
    places = make_places(1)
    await places.take(max_waiting=0, seconds=0)
    waiting = [asyncio.create_task(places.take(max_waiting=9, seconds=9)) for _ in range(3)]
    await until_waiting(places, 3)

    places.limit_to(3)
    await until_waiting(places, 1)
    assert places.taken == 3
    places.limit_to(1)
    places.leave()
    places.leave()
    assert (places.taken, places.waiting) == (1, 1)
    places.leave()
    await asyncio.gather(*waiting)

    assert (places.taken, places.waiting) == (1, 0)


@pytest.mark.parametrize("seed", range(4))
async def test_counts_are_exact_under_hundreds_of_random_cancellations(seed: int) -> None:
    random, limit = seeded(seed), 3
    places = make_places(limit)
    most = served = 0

    async def call() -> None:
        nonlocal most, served
        await places.take(
            max_waiting=random.choice([20, 1000]),
            seconds=random.choice([0.001, 5]),
            tenant_id=random.choice([ADA, BOB, CY]),
        )
        try:
            most = max(most, places.taken)
            for _ in range(random.randrange(4)):
                await asyncio.sleep(0)
            served += 1
        finally:
            places.leave()

    callers: list[asyncio.Task[None]] = []
    for _ in range(600):
        callers.append(asyncio.create_task(call()))
        if random.random() < 0.7:
            await asyncio.sleep(0)
        if random.random() < 0.5:
            random.choice(callers).cancel()
    await asyncio.gather(*callers, return_exceptions=True)

    assert (places.taken, places.waiting) == (0, 0)
    assert most == limit
    assert served > 100
