"""What is read once for everybody: one read at a time, nobody told of anything older."""

import asyncio
from dataclasses import dataclass, field

import pytest

from maas.inference.infrastructure.route_cache import SharedReads


class DownError(Exception):
    pass


@dataclass
class Source:
    """Answers with how often it was asked; waits while it is held, and fails while it is down."""

    reads: int = 0
    now: float = 0.0
    is_down: bool = False
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    async def read(self, key: str) -> str:
        self.reads += 1
        mine = self.reads
        await self.open.wait()
        if self.is_down:
            raise DownError
        return f"{key} {mine}"

    def cache(self, *, max_entries: int = 100) -> SharedReads[str, str]:
        return SharedReads(self.read, seconds=1.0, max_entries=max_entries, now=lambda: self.now)


async def test_a_hundred_who_ask_at_once_are_told_by_one_read() -> None:
    source = Source()
    cache = source.cache()

    told = await asyncio.gather(*(cache.get("a") for _ in range(100)))

    assert set(told) == {"a 1"}
    assert source.reads == 1


async def test_nobody_is_told_of_what_is_a_second_old() -> None:
    source = Source()
    cache = source.cache()
    first = await cache.get("a")
    source.now = 0.999
    still = await cache.get("a")
    source.now = 1.0

    assert (first, still, await cache.get("a")) == ("a 1", "a 1", "a 2")


async def test_a_second_counts_from_when_a_read_began() -> None:
    source = Source()
    source.open.clear()
    cache = source.cache()
    slow = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    source.now = 1.5
    later = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    source.open.set()

    assert (await slow, await later) == ("a 1", "a 2")


async def test_what_failed_is_told_to_those_who_waited_and_tried_anew_for_others() -> None:
    source = Source()
    cache = source.cache()
    await cache.get("a")
    source.now, source.is_down = 1.0, True

    told = await asyncio.gather(cache.get("a"), cache.get("a"), return_exceptions=True)
    source.is_down = False

    assert [type(each) for each in told] == [DownError, DownError]
    assert source.reads == 2
    assert await cache.get("a") == "a 3"


async def test_who_began_a_read_may_leave_without_ending_it_for_others() -> None:
    source = Source()
    source.open.clear()
    cache = source.cache()
    leaver, stayer = (asyncio.create_task(cache.get("a")) for _ in range(2))
    await asyncio.sleep(0)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    source.open.set()

    assert await stayer == "a 1"
    assert source.reads == 1


async def test_no_more_is_kept_than_there_is_room_for() -> None:
    source = Source()
    cache = source.cache(max_entries=10)

    for number in range(1_000):
        assert await cache.get(f"k{number}") == f"k{number} {number + 1}"

    assert len(cache) <= 10
