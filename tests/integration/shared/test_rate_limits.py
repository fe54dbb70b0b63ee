"""Buckets in Redis: exact under load, whoever counts, whatever its clock and its disk do."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from maas.shared.domain.call import Call, current_call, serving
from maas.shared.domain.ids import AccountId, new_id
from maas.shared.domain.rate_limit import HOUR, MINUTE, Rate, RateLimitedError, Standing
from maas.shared.infrastructure.rate_limit_settings import RateLimitSettings
from maas.shared.infrastructure.rate_limits import PREFIX, TAKE, Bucket, LocalBuckets, RateLimits
from maas.shared.infrastructure.redis import RedisGate, Script
from tests.conftest import MakeSettings
from tests.fakes.recorder import FakeRecorder
from tests.own_valkey import OwnValkey

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

SLOW = Bucket(f"{PREFIX}test:slow", Rate("slow", 100, HOUR))
TWO = Bucket(f"{PREFIX}test:two", Rate("two", 2, HOUR))
HOUR_US = HOUR * 1_000_000


@pytest.fixture
def own_valkey() -> Iterator[OwnValkey]:
    valkey = OwnValkey()
    yield valkey
    valkey.stop()


@pytest.fixture
async def redis(redis_gate: RedisGate) -> AsyncIterator[Redis]:
    yield redis_gate.client
    await redis_gate.client.flushdb()


def make_limits(redis: RedisGate, **settings: int) -> RateLimits:
    return RateLimits(RateLimitSettings(**settings), redis=redis)  # type: ignore[arg-type]  # one mapping


def lefts(standing: Standing) -> list[int]:
    return [level.left for level in standing.levels]


@pytest.mark.usefixtures("redis")
async def test_1000_at_once_over_a_limit_of_100_are_exactly_100(
    make_settings: MakeSettings,
) -> None:
    # A busy machine takes a while to open so many connections, and none shall be given up.
    gates = [RedisGate(make_settings(redis={"timeout_ms": 30_000}).redis) for _ in range(2)]
    both = [make_limits(gate) for gate in gates]

    standings = await asyncio.gather(*(both[n % 2].take([SLOW]) for n in range(1000)))
    for gate in gates:
        await gate.close()

    admitted = [standing for standing in standings if not standing.is_exceeded]
    assert len(admitted) == 100
    assert sorted(left for standing in admitted for left in lefts(standing)) == [*range(100)]
    assert sum(standing.is_news for standing in standings) == 1


@pytest.mark.usefixtures("redis")
async def test_a_bucket_fills_again_at_its_pace(redis_gate: RedisGate) -> None:
    limits, bucket = make_limits(redis_gate), Bucket(f"{PREFIX}test:fast", Rate("fast", 20, 2))
    while not (last := await limits.take([bucket])).is_exceeded:
        pass

    assert 0 < last.levels[0].wait_us <= 100_000
    await asyncio.sleep(last.levels[0].wait_us / 1_000_000)
    again = await limits.take([bucket])

    assert not again.is_exceeded


@pytest.mark.usefixtures("redis")
async def test_where_one_bucket_is_empty_none_is_taken_from(redis_gate: RedisGate) -> None:
    limits = make_limits(redis_gate)

    taken = [lefts(await limits.take([SLOW, TWO])) for _ in range(4)]

    assert taken == [[99, 1], [98, 0], [98, -1], [98, -1]]


@pytest.mark.usefixtures("redis")
async def test_redis_and_the_process_count_alike(redis_gate: RedisGate) -> None:
    limits, local = make_limits(redis_gate), LocalBuckets()
    asked = [[SLOW], [SLOW, TWO], [TWO], [TWO], [SLOW, TWO], [SLOW]]

    there = [await limits.take(buckets) for buckets in asked]
    here = [local.take(buckets) for buckets in asked]

    assert [lefts(each) for each in there] == [lefts(each) for each in here]
    assert [each.is_news for each in there] == [each.is_news for each in here]
    for one, other in zip(there, here, strict=True):
        for level, same in zip(one.levels, other.levels, strict=True):
            assert level.wait_us == pytest.approx(same.wait_us, abs=5_000_000)


@pytest.mark.usefixtures("redis")
async def test_a_site_of_ipv6_is_one_address(redis_gate: RedisGate) -> None:
    limits = make_limits(redis_gate, unauthenticated_per_minute=2)
    addresses = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1", "192.0.2.1"]

    taken = [lefts(await limits.take_of_address(address)) for address in addresses]

    assert taken == [[1], [0], [1], [1]]


class TestClock:
    async def test_one_that_was_set_back_holds_nobody_for_long(
        self, redis_gate: RedisGate, redis: Redis
    ) -> None:
        limits = make_limits(redis_gate)
        await limits.take([SLOW])
        full_at = int(await redis.get(SLOW.key) or 0)
        # To the server it now looks as if this had been written an hour from now.
        await redis.set(SLOW.key, full_at + HOUR_US)

        refused = await limits.take([SLOW])

        assert refused.is_exceeded
        assert refused.levels[0].wait_us == SLOW.rate.interval_us

    async def test_one_that_was_set_ahead_fills_a_bucket_and_no_more(
        self, redis_gate: RedisGate, redis: Redis
    ) -> None:
        limits = make_limits(redis_gate)
        await limits.take([TWO])
        full_at = int(await redis.get(TWO.key) or 0)
        await redis.set(TWO.key, full_at - 100 * HOUR_US)

        taken = [lefts(await limits.take([TWO])) for _ in range(3)]

        assert taken == [[1], [0], [-1]]

    @pytest.mark.usefixtures("redis")
    async def test_a_lower_limit_holds_for_buckets_of_before(self, redis_gate: RedisGate) -> None:
        limits = make_limits(redis_gate)
        lower = Bucket(SLOW.key, Rate("slow", 2, MINUTE))
        for _ in range(60):
            await limits.take([SLOW])

        refused = await limits.take([lower])

        assert refused.is_exceeded
        assert refused.levels[0].wait_us <= lower.rate.interval_us


class TestServer:
    async def test_counting_writes_nothing_to_its_file(
        self, own_valkey: OwnValkey, make_settings: MakeSettings
    ) -> None:
        gate = RedisGate(make_settings(redis={"url": own_valkey.url}).redis)
        limits = make_limits(gate)

        async def written() -> int:
            info = await gate.client.info("persistence")
            return int(info["aof_current_size"])

        before = await written()
        standings = [await limits.take([TWO]) for _ in range(20)]
        await limits.give_back(standings[0])
        for _ in range(20):
            # This one is full again each time.
            await limits.take([Bucket("quick", Rate("quick", 1_000_000, MINUTE))])
            await asyncio.sleep(0.002)
        after = await written()
        await gate.client.set("something", "else")
        grown = await written()
        await gate.close()

        assert sum(not each.is_exceeded for each in standings) == 2
        assert after == before
        assert grown > after

    async def test_one_that_takes_no_writes_leaves_the_counting_to_the_process(
        self, own_valkey: OwnValkey, make_settings: MakeSettings
    ) -> None:
        gate = RedisGate(make_settings(redis={"url": own_valkey.url}).redis)
        limits = make_limits(gate)
        own_valkey.configure("maxmemory", "1")

        full = [lefts(await limits.take([TWO])) for _ in range(3)]
        own_valkey.configure("maxmemory", "0")
        room = [lefts(await limits.take([TWO])) for _ in range(3)]
        own_valkey.demote()
        await asyncio.gather(limits.take([SLOW]))
        read_only = lefts(await limits.take([SLOW]))
        is_shut = gate.is_shut
        await gate.close()

        assert full == [[1], [0], [-1]]
        assert room == [[1], [0], [-1]]
        assert read_only == [98]
        assert not is_shut

    async def test_what_the_process_counted_is_given_back_there(
        self, own_valkey: OwnValkey, make_settings: MakeSettings
    ) -> None:
        gate = RedisGate(make_settings(redis={"url": own_valkey.url}).redis)
        limits = make_limits(gate)
        own_valkey.configure("maxmemory", "1")

        taken = []
        for _ in range(3):
            standing = await limits.take([TWO])
            taken.append(lefts(standing))
            await limits.give_back(standing)
        await gate.close()

        assert taken == [[1], [1], [1]]

    async def test_what_a_script_writes_after_counting_is_written_to_the_file(
        self, own_valkey: OwnValkey, make_settings: MakeSettings
    ) -> None:
        gate = RedisGate(make_settings(redis={"url": own_valkey.url}).redis)
        counting = "take({{KEYS[1], 1000000, 2000000}}, microseconds(), 1)\n"
        before = (await gate.client.info("persistence"))["aof_current_size"]

        await gate.evaluate(
            Script(f"{TAKE}{counting}redis.call('SET', KEYS[2], '1')"), keys=["one", "two"], args=[]
        )
        after = (await gate.client.info("persistence"))["aof_current_size"]
        await gate.close()

        assert after > before

    async def test_one_that_is_killed_is_stood_in_for(
        self, own_valkey: OwnValkey, make_settings: MakeSettings
    ) -> None:
        gate = RedisGate(make_settings(redis={"url": own_valkey.url}).redis)
        limits = make_limits(gate)
        before = lefts(await limits.take([TWO]))
        own_valkey.kill()

        without = [lefts(await limits.take([TWO])) for _ in range(3)]
        own_valkey.start()
        gate._shut_until = 0.0
        again = lefts(await limits.take([TWO]))
        await gate.close()

        assert before == [1]
        assert without == [[1], [0], [-1]]
        # What it counted before it died was only in its memory.
        assert again == [1]


class TestCall:
    async def test_without_a_call_nothing_is_counted(self, redis_gate: RedisGate) -> None:
        limits = make_limits(redis_gate)

        assert limits.buckets_of_account(AccountId(new_id())) == []
        assert limits.key_check("public") == ([], [])

    async def test_a_process_without_redis_refuses_before_it_asks_anybody(
        self, redis_gate: RedisGate
    ) -> None:
        limits = make_limits(redis_gate, requests_per_minute=1)
        holder = AccountId(new_id())
        call = Call(request_id="test", recorder=FakeRecorder(), route_class="default")
        with serving(call):
            limits.note_here(limits.buckets_of_account(holder))
            with pytest.raises(RateLimitedError):
                limits.note_here(limits.buckets_of_account(holder))

            standing = current_call().standing
            assert standing is not None
            assert standing.is_exceeded
