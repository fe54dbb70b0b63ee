"""Class B while Redis, PostgreSQL and the disk go away, one after the other."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from maas.audit.infrastructure.spool import measure_spools
from maas.audit.public import AuditUnavailableError, audit_scope
from maas.audit.wiring import AuditContext, build_audit, spool_folder
from maas.shared.domain.call import Call, serving
from maas.shared.domain.errors import PermissionDeniedError
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import COOL_DOWN_SECONDS, RedisGate
from maas.shared.infrastructure.settings import Settings
from tests.integration.audit.helpers import Trail, acting
from tests.own_valkey import OwnValkey

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

NOWHERE = "redis://127.0.0.1:9/0"
NO_DATABASE = "postgresql://maas_app@127.0.0.1:9/none"
MakeSettings = Callable[..., Settings]


@asynccontextmanager
async def audit_over(settings: Settings, data_dir: Path | None) -> AsyncIterator[AuditContext]:
    redis, database = RedisGate(settings.redis), Database(settings.database)
    await database.open()
    audit = build_audit(
        database=database,
        redis=redis,
        clock=SystemClock(),
        settings=settings.audit,
        data_dir=data_dir,
    )
    try:
        yield audit
    finally:
        await audit.close()
        await redis.close()
        await database.close()


@pytest.fixture
async def without_both(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[AuditContext]:
    """Audit of a process that reaches nothing but its disk."""
    settings = make_settings(redis={"url": NOWHERE}, database={"url": NO_DATABASE})
    async with audit_over(settings, tmp_path) as audit:
        yield audit


@pytest.fixture
async def without_all(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[AuditContext]:
    """Audit of a process whose disk takes nothing either."""
    tmp_path.joinpath("file").write_text("")
    settings = make_settings(redis={"url": NOWHERE}, database={"url": NO_DATABASE})
    async with audit_over(settings, tmp_path / "file") as audit:
        yield audit


class TestSpool:
    async def test_keeps_what_neither_server_takes_until_one_does(
        self, without_both: AuditContext, trail: Trail, tmp_path: Path, make_settings: MakeSettings
    ) -> None:
        for _ in range(3):
            async with acting(without_both, "auth.login") as scope:
                scope.email = "ada@example.com"
        await without_both.upkeep.turn()
        assert measure_spools(spool_folder(tmp_path), counting=True).records == 3
        await without_both.close()

        async with audit_over(make_settings(), tmp_path) as restarted:
            await restarted.upkeep.turn()

        assert measure_spools(spool_folder(tmp_path)).bytes == 0
        await trail.age()
        await trail.flush().run()
        assert await trail.check_chain() == 3
        email = await trail.superuser.fetchval("SELECT DISTINCT email FROM audit_personal")
        assert email == "ada@example.com"

    async def test_is_emptied_by_the_process_that_filled_it(
        self, make_settings: MakeSettings, trail: Trail, tmp_path: Path
    ) -> None:
        settings = make_settings(redis={"url": NOWHERE})
        async with audit_over(settings, tmp_path) as audit:
            await trail.superuser.execute("ALTER TABLE audit_outbox RENAME TO audit_outbox_away")
            try:
                async with acting(audit, "auth.login"):
                    pass
            finally:
                await trail.superuser.execute(
                    "ALTER TABLE audit_outbox_away RENAME TO audit_outbox"
                )
            assert (await audit.backlog())["spool_records"] == 1

            audit.upkeep.start()
            await trail.until(lambda: measure_spools(spool_folder(tmp_path)).bytes == 0)

        assert await trail.count("audit_outbox") == 1

    async def test_handed_over_twice_is_logged_once(
        self, without_both: AuditContext, trail: Trail, tmp_path: Path, make_settings: MakeSettings
    ) -> None:
        async with acting(without_both, "auth.login"):
            pass
        await without_both.close()
        folder = spool_folder(tmp_path)
        file = next(folder.glob("*.spool"))
        copies = [(folder / f"copy-{number}.spool", file.read_bytes()) for number in range(2)]

        async with audit_over(make_settings(), tmp_path) as audit:
            await audit.upkeep.turn()
            for path, content in copies:
                path.write_bytes(content)
                await audit.upkeep.turn()
                await trail.age()
                await trail.flush().run()

        assert await trail.check_chain() == 1


class TestRefusal:
    async def test_of_what_must_be_recorded_says_when_to_come_back(
        self, without_all: AuditContext
    ) -> None:
        with pytest.raises(AuditUnavailableError) as refused:
            async with acting(without_all, "auth.login"):
                pass

        assert refused.value.retry_after is not None

    async def test_spares_ordinary_reads_and_counts_them(self, without_all: AuditContext) -> None:
        for _ in range(3):
            with serving(Call(request_id="r", recorder=without_all.recorder)):
                async with audit_scope("model_file.downloaded", must=False):
                    pass

        assert (await without_all.backlog())["gap_events"] == 3

    async def test_does_not_spare_a_denial(self, without_all: AuditContext) -> None:
        with (
            pytest.raises(AuditUnavailableError),
            serving(Call(request_id="r", recorder=without_all.recorder)),
        ):
            async with audit_scope("model_file.downloaded", must=False):
                raise PermissionDeniedError

    async def test_a_gap_is_audited_once_something_works(
        self, make_settings: MakeSettings, trail: Trail
    ) -> None:
        async with audit_over(make_settings(redis={"url": NOWHERE}), None) as audit:
            await trail.superuser.execute("ALTER TABLE audit_outbox RENAME TO audit_outbox_away")
            try:
                for _ in range(2):
                    with serving(Call(request_id="r", recorder=audit.recorder)):
                        async with audit_scope("model_file.downloaded", must=False):
                            pass
                await audit.upkeep.turn()
            finally:
                await trail.superuser.execute(
                    "ALTER TABLE audit_outbox_away RENAME TO audit_outbox"
                )
            await audit.upkeep.turn()
            await audit.upkeep.turn()
            assert (await audit.backlog())["gap_events"] == 0

        await trail.age()
        await trail.flush().run()
        rows = await trail.superuser.fetch("SELECT action, outcome, payload FROM audit_log")
        assert [(row["action"], row["outcome"]) for row in rows] == [("audit.gap", "failure")]
        assert json.loads(rows[0]["payload"])["changes"]["after"] == {"unrecorded": 2}

    async def test_a_gap_is_audited_by_a_process_that_stops(
        self, make_settings: MakeSettings, trail: Trail
    ) -> None:
        async with audit_over(make_settings(redis={"url": NOWHERE}), None) as audit:
            audit.gap.widen()

        await trail.age()
        await trail.flush().run()
        assert await trail.superuser.fetchval("SELECT action FROM audit_log") == "audit.gap"


class ErrorServer:
    """Speaks enough of the protocol to be connected to, and answers XADD with an error."""

    def __init__(self, error: str) -> None:
        self._error = error

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readline():
                words = []
                for _ in range(int(head[1:])):
                    length = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(length + 2))[:-2])
                name = words[0].upper()
                if name == b"HELLO":
                    writer.write(b"%1\r\n+proto\r\n:3\r\n")
                elif name == b"CLIENT":
                    writer.write(b"+OK\r\n")
                else:
                    writer.write(f"-{self._error}\r\n".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class TestRedisThatRefuses:
    @pytest.mark.parametrize(
        "error",
        [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "READONLY You can't write against a read only replica.",
            "LOADING server is loading the dataset in memory",
            "MISCONF Errors writing to the AOF file: No space left on device",
            "NOREPLICAS Not enough good replicas to write.",
            "MASTERDOWN Link with MASTER is down.",
            "BUSY server is busy running a script.",
            "NOPERM this user has no permissions to run the 'xadd' command",
            "NOAUTH Authentication required.",
        ],
        ids=lambda error: error.split()[0],
    )
    async def test_counts_as_down(
        self, make_settings: MakeSettings, trail: Trail, error: str
    ) -> None:
        server = await asyncio.start_server(ErrorServer(error).serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = make_settings(redis={"url": f"redis://127.0.0.1:{port}/0"})
        async with server, audit_over(settings, None) as audit, acting(audit, "auth.login"):
            pass

        assert await trail.count("audit_outbox") == 1


@pytest.fixture
def own_valkey() -> Iterator[OwnValkey]:
    valkey = OwnValkey()
    yield valkey
    valkey.stop()


class TestRealValkey:
    async def test_that_is_full_refuses_new_events_and_still_gives_the_old_ones_away(
        self, own_valkey: OwnValkey, make_settings: MakeSettings, trail: Trail
    ) -> None:
        settings = make_settings(redis={"url": own_valkey.url})
        async with audit_over(settings, None) as audit:
            async with acting(audit, "auth.login"):
                pass
            own_valkey.configure("maxmemory", "1")
            async with acting(audit, "auth.login"):
                pass
            backlog = await audit.backlog()
            assert (backlog["stream_entries"], backlog["outbox_rows"]) == (1, 1)

            report = await trail.flush(redis=settings.redis).run()

            assert (report.written, report.interrupted) == (1, [])
            assert (await audit.backlog())["stream_entries"] == 0

    async def test_that_became_a_replica_counts_as_down(
        self, own_valkey: OwnValkey, make_settings: MakeSettings, trail: Trail
    ) -> None:
        async with audit_over(make_settings(redis={"url": own_valkey.url}), None) as audit:
            async with acting(audit, "auth.login"):
                pass
            own_valkey.demote()

            async with acting(audit, "auth.login"):
                pass

        assert await trail.count("audit_outbox") == 1

    async def test_killed_and_started_again_is_used_again(
        self, own_valkey: OwnValkey, make_settings: MakeSettings, trail: Trail
    ) -> None:
        async with audit_over(make_settings(redis={"url": own_valkey.url}), None) as audit:
            async with acting(audit, "auth.login"):
                pass
            await asyncio.to_thread(own_valkey.kill)
            async with acting(audit, "auth.login"):
                pass
            await asyncio.to_thread(own_valkey.start)
            # The gate stays shut for a second after a failure.
            await asyncio.sleep(COOL_DOWN_SECONDS)
            async with acting(audit, "auth.login"):
                pass
            assert (await audit.backlog())["stream_entries"] == 2

        assert await trail.count("audit_outbox") == 1


async def test_a_blocked_database_is_not_waited_for_until_it_is_free(
    make_settings: MakeSettings, trail: Trail, tmp_path: Path
) -> None:
    locker: asyncpg.Connection[asyncpg.Record] = trail.superuser
    settings = make_settings(redis={"url": NOWHERE})
    async with audit_over(settings, tmp_path) as audit, locker.transaction():
        await locker.execute("LOCK TABLE audit_outbox IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(20), acting(audit, "auth.login"):
            pass

        assert measure_spools(spool_folder(tmp_path), counting=True).records == 1
