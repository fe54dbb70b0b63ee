"""The sweep: without a broker there is no tick, and the trail moves all the same."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from maas.audit.application.events import QueuedEvent
from maas.audit.flush_wiring import sweep_for_ever
from maas.audit.infrastructure.backlog import read_stream_age
from maas.audit.infrastructure.spool import Spool, measure_spools
from maas.audit.infrastructure.stream import STREAM, entry_fields
from maas.audit.infrastructure.sweeper import Sweeper
from maas.audit.wiring import spool_folder
from maas.shared.infrastructure.background import BackgroundLoop
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import Settings
from tests.integration.audit.helpers import Trail, names

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

NOWHERE = "redis://127.0.0.1:9/0"
MakeSettings = Callable[..., Settings]
MakeSweeper = Callable[..., Sweeper]


@pytest.fixture
def make_sweeper(settings: Settings, trail: Trail, tmp_path: Path) -> MakeSweeper:
    def make(redis: RedisGate | None = None) -> Sweeper:
        return Sweeper(
            system_arguments(settings.database),
            flush=trail.flush(),
            folder=spool_folder(tmp_path),
            stream_age=lambda: read_stream_age(redis or trail.redis),
        )

    return make


async def spool_event(folder: Path, event: QueuedEvent) -> None:
    """Leave an event as a process does that is gone."""
    spool = Spool(folder, max_bytes=1024 * 1024)
    await spool.append(event)
    await spool.close()


async def add_long_ago(trail: Trail, event: QueuedEvent) -> None:
    seconds, _ = await trail.redis.client.time()
    await trail.redis.client.xadd(STREAM, entry_fields(event), id=f"{(seconds - 6) * 1000}-0")


class TestSweep:
    async def test_flushes_what_no_tick_has(self, trail: Trail, make_sweeper: MakeSweeper) -> None:
        event = trail.make()
        await trail.keep(event)
        await trail.superuser.execute(
            "UPDATE audit_outbox SET created_at = created_at - interval '1 s'"
        )

        report = await make_sweeper().sweep()

        assert report is not None
        assert report.written == 1
        assert await trail.logged() == names(event)

    async def test_leaves_young_events_to_the_tick(
        self, trail: Trail, make_sweeper: MakeSweeper
    ) -> None:
        await trail.add(trail.make())
        await trail.superuser.execute(
            "INSERT INTO audit_outbox (event_id, tenant_id, payload, personal)"
            " VALUES (gen_random_uuid(), gen_random_uuid(), '', '{}')"
        )

        assert await make_sweeper().sweep() is None

    async def test_flushes_the_stream_where_only_the_broker_is_gone(
        self, trail: Trail, make_sweeper: MakeSweeper
    ) -> None:
        event = trail.make()
        await add_long_ago(trail, event)

        report = await make_sweeper().sweep()

        assert report is not None
        assert await trail.logged() == names(event)

    async def test_is_not_held_up_by_a_redis_that_hangs(
        self, make_sweeper: MakeSweeper, make_settings: MakeSettings
    ) -> None:
        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(hang, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        redis = {"url": f"redis://127.0.0.1:{port}/0", "timeout_ms": 60_000}
        gate = RedisGate(make_settings(redis=redis).redis)

        async with server, asyncio.timeout(20):
            assert await make_sweeper(gate).sweep() is None
            await gate.close()

    async def test_takes_what_is_left_in_spools(
        self, trail: Trail, make_sweeper: MakeSweeper, tmp_path: Path
    ) -> None:
        event = trail.make()
        await spool_event(spool_folder(tmp_path), event)
        sweeper = make_sweeper()

        await sweeper.sweep()
        assert measure_spools(spool_folder(tmp_path)).bytes == 0
        assert await trail.count("audit_outbox") == 1
        await trail.age()
        await sweeper.sweep()

        assert await trail.logged() == names(event)

    async def test_is_one_of_many_at_a_time(self, trail: Trail, make_sweeper: MakeSweeper) -> None:
        await trail.keep(trail.make())
        await trail.age()
        lock = "SELECT pg_try_advisory_xact_lock(hashtextextended('maas.audit_sweep', 0))"

        async with trail.superuser.transaction():
            assert await trail.superuser.fetchval(lock)
            assert await make_sweeper().sweep() is None
        assert await make_sweeper().sweep() is not None


@asynccontextmanager
async def sweeping(settings: Settings) -> AsyncIterator[BackgroundLoop]:
    loop = BackgroundLoop(lambda: sweep_for_ever(settings), name="sweeper-under-test")
    loop.start()
    try:
        yield loop
    finally:
        await asyncio.to_thread(loop.stop)


async def wait_for_rows(trail: Trail, count: int) -> None:
    async with asyncio.timeout(15):
        while await trail.count("audit_log") < count:  # noqa: ASYNC110  another thread's doing
            await asyncio.sleep(0.05)


class TestForEver:
    async def test_needs_no_redis(
        self, make_settings: MakeSettings, trail: Trail, tmp_path: Path
    ) -> None:
        event = trail.make()
        await trail.keep(event)
        settings = make_settings(redis={"url": NOWHERE, "broker_url": NOWHERE}, data_dir=tmp_path)

        async with sweeping(settings):
            await wait_for_rows(trail, 1)

        assert await trail.logged() == names(event)

    async def test_goes_on_after_errors_of_every_kind(
        self, make_settings: MakeSettings, trail: Trail, tmp_path: Path
    ) -> None:
        settings = make_settings(redis={"url": NOWHERE, "broker_url": NOWHERE}, data_dir=tmp_path)
        # A folder where a file of events should be: no error the sweep is written for.
        odd = spool_folder(tmp_path) / "odd.spool"
        odd.mkdir(parents=True)
        await trail.superuser.execute("ALTER TABLE audit_outbox RENAME TO audit_outbox_away")
        async with sweeping(settings) as loop:
            try:
                await asyncio.sleep(3)
            finally:
                await trail.superuser.execute(
                    "ALTER TABLE audit_outbox_away RENAME TO audit_outbox"
                )
            odd.rmdir()
            await trail.keep(trail.make())

            await wait_for_rows(trail, 1)
            assert loop.is_alive

    async def test_stops_within_two_seconds(
        self, make_settings: MakeSettings, tmp_path: Path
    ) -> None:
        async with sweeping(make_settings(redis={"url": NOWHERE}, data_dir=tmp_path)) as loop:
            await asyncio.to_thread(loop.stop, timeout_seconds=2.0)

            assert not loop.is_alive
