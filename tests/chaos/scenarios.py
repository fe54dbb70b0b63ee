"""The fault matrix: each scenario breaks one thing under load, and leaves it mended."""

import asyncio
import random
import resource
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import psutil

from tests.chaos import faults
from tests.chaos.invariants import STREAM
from tests.chaos.load import PASSWORD, UnansweredError
from tests.chaos.programs import Program
from tests.chaos.stage import Stage
from tests.chaos.valkey_plays import (
    Play,
    fill_valkey,
    hang_valkey,
    keep_valkey_down,
    kill_valkey,
    tear_the_aof,
    wipe_valkey,
)
from tests.fault_proxy import Faults

ROOT: Final = Path(__file__).resolve().parents[2]
ODDS: Final = "0.03"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One row of the matrix."""

    title: str
    play: Play
    needs_root: bool = False


async def kill_apis(stage: Stage) -> None:
    for _ in range(4):
        async with stage.fault("kill -9 an API process"):
            await asyncio.sleep(stage.dice.uniform(0.3, 1.2))
            await faults.kill_api(stage.cluster, stage.dice)


def die_in_api(point: str) -> Play:
    async def play(stage: Stage) -> None:
        api = stage.cluster.apis[0]
        async with stage.fault(f"an API process dies {point}"):
            await stage.with_environment(api, CHAOS_FAIL_AT=point, CHAOS_FAIL_ODDS=ODDS)
            before = api.starts
            await asyncio.sleep(8)
            deaths = api.starts - before
            stage.expect(deaths > 0, f"no API process died {point}")
            await stage.with_environment(api)
        stage.faults += max(deaths - 1, 0)

    return play


async def die_in_flush(stage: Stage) -> None:
    worker, other = stage.cluster.workers
    for point in ("after_read", "after_insert", "after_flush"):
        async with stage.fault(f"a pool process dies {point}"):
            # The other one would do all the work while this one comes back.
            other.send_to_all(signal.SIGSTOP)
            before = _deaths(worker)
            await stage.with_environment(worker, CHAOS_FAIL_AT=point, CHAOS_FAIL_ODDS="0.5")
            deaths = 0
            for _ in range(150):
                await asyncio.sleep(0.2)
                if (deaths := _deaths(worker) - before) >= 2:
                    break
            stage.expect(deaths > 0, f"no pool process died {point}")
            other.send_to_all(signal.SIGCONT)
            await stage.with_environment(worker)
        stage.faults += max(deaths - 1, 0)


def _deaths(worker: Program) -> int:
    return worker.log.read_text(encoding="utf-8", errors="replace").count("signal 9 (SIGKILL)")


async def kill_celery(stage: Stage) -> None:
    for do in (faults.kill_worker, faults.kill_pool_child, faults.kill_beat) * 2:
        async with stage.fault(do.__name__):
            await do(stage.cluster, stage.dice)
            await asyncio.sleep(1.5)


async def freeze_a_flusher(stage: Stage) -> None:
    for worker in stage.cluster.workers:
        async with stage.fault("a worker frozen past its entries' idle time"):
            worker.send_to_all(signal.SIGSTOP)
            await asyncio.sleep(9)
            worker.send_to_all(signal.SIGCONT)
            await asyncio.sleep(1)


def fill_the_disk_of(name: str, *, room_kib: int) -> Play:
    async def play(stage: Stage) -> None:
        """Move a server to a disk with little room, until that is used up, and move it back."""
        program = next(each for each in stage.cluster.programs if each.name == name)
        data, aside = stage.cluster.folder / name, stage.cluster.folder / f"{name}-aside"
        async with stage.fault(f"the disk of {name} is full"):
            refused = stage.book.refused
            program.wanted = False
            await asyncio.to_thread(program.kill)
            used = sum(file.stat().st_size for file in data.rglob("*") if file.is_file())
            size = used // 1024 + room_kib
            await _shell(f"mv {data} {aside} && mkdir {data}")
            await _shell(f"mount -t tmpfs -o size={size}k,mode=0700 tmpfs {data}")
            await _shell(f"chown --reference={aside} {data} && cp -a {aside}/. {data}")
            program.launch()
            program.wanted = False
            for _ in range(200):
                await asyncio.sleep(0.1)
                if not program.is_running:
                    break
            # PostgreSQL refuses, or crashes and recovers again and again; Valkey ends itself.
            is_told = stage.book.refused > refused
            stage.expect(is_told or not program.is_running, f"the disk of {name} did not fill")
            stage.notes.append(f"{name} {'runs' if program.is_running else 'ended'} on a full disk")
            await asyncio.to_thread(program.kill)
            # What was acknowledged is on the small disk, and goes on from there.
            await _shell(f"rm -rf {aside} && cp -a {data} {aside} && umount {data} && rmdir {data}")
            await _shell(f"mv {aside} {data}")
            await asyncio.to_thread(program.start)

    return play


async def _shell(command: str) -> None:
    process = await asyncio.create_subprocess_shell(command)
    if await process.wait():
        raise RuntimeError(f"this failed: {command}")


async def poison(stage: Stage) -> None:
    """Entries nobody can read: the rest flows on, and they are kept aside as they came."""
    entries: list[dict[Any, Any]] = [
        {b"garbage": b"\x00\xff"},
        {b"v": b"1", b"id": b"x", b"payload": b"{}", b"personal": b"{}"},
        {b"v": b"99", b"id": b"x", b"payload": b"{}", b"personal": b"{}"},
        {b"v": b"1", b"id": b"x", b"payload": b"\x00" * 100, b"personal": b"\xff"},
        {b"v": b"1", b"id": b"x", b"payload": b"[" * 10_000, b"personal": b"{}"},
        {b"v": b"1", b"id": b"x", b"payload": b"a" * 10_000_000, b"personal": b"{}"},
    ]
    async with stage.fault("poison in the stream"):
        with stage.cluster.redis() as redis:
            for entry in entries:
                redis.xadd(STREAM, entry)
                await asyncio.sleep(0.5)
        stage.dead_letters += len(entries)
        await asyncio.sleep(3)


async def crash_postgres(stage: Stage) -> None:
    for _ in range(2):
        async with stage.fault("kill -9 postmaster"):
            await faults.crash_postgres(stage.cluster, stage.dice)
            await asyncio.sleep(1)
    async with stage.fault("kill -9 a backend"):
        await faults.kill_backend(stage.cluster, stage.dice)
        await asyncio.sleep(1)


async def end_connections(stage: Stage) -> None:
    for _ in range(8):
        async with stage.fault("all connections ended"):
            await faults.end_all_connections(stage.cluster, stage.dice)
            await asyncio.sleep(1)


def break_links(server: str, name: str, what: Faults, seconds: float) -> Play:
    async def play(stage: Stage) -> None:
        links = stage.cluster.links_to(server)
        async with stage.fault(name):
            for link in links:
                link.become(what)
            await asyncio.sleep(seconds)
            for link in links:
                link.heal()

    return play


async def cut_everything(stage: Stage) -> None:
    names = [
        "links reset",
        "PostgreSQL cut short",
        "Valkey cut short",
        "PostgreSQL in slices",
        "a link half closed",
    ]
    for name in names * 2:
        async with stage.fault(name):
            await faults.FAULTS[name].do(stage.cluster, stage.dice)


async def lock_tables(stage: Stage) -> None:
    for table in ("models", "sessions", "audit_log"):
        async with (
            stage.fault(f"{table} locked"),
            stage.cluster.superuser() as connection,
            connection.transaction(),
        ):
            await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(10)


async def cross_transactions(stage: Stage) -> None:
    """Somebody's maintenance takes rows in another order than requests do."""
    async with stage.fault("crossing transactions"):
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            with suppress(asyncpg.PostgresError):
                async with stage.cluster.superuser() as connection, connection.transaction():
                    await connection.execute("SET LOCAL deadlock_timeout = '10ms'")
                    await connection.execute(
                        "SELECT FROM memberships ORDER BY id DESC LIMIT 50 FOR UPDATE"
                    )
                    await asyncio.sleep(0.05)
                    await connection.execute("SELECT FROM roles ORDER BY id DESC FOR UPDATE")


async def exhaust_the_pool(stage: Stage) -> None:
    """More slow requests than connections: refused soon, and none left hanging after."""
    async with stage.fault("the pool is exhausted"):
        async with stage.cluster.superuser() as connection, connection.transaction():
            await connection.execute("LOCK TABLE models IN ACCESS EXCLUSIVE MODE")
            began = time.monotonic()
            client = stage.clients[0]
            token = client.admin.access if client.admin else None
            asking = [
                client.send(url, "GET", "/api/v1/models", token=token)
                for url in stage.cluster.urls
                for _ in range(50)
            ]
            answers = await asyncio.gather(*asking, return_exceptions=True)
            took = time.monotonic() - began
        statuses = [each[0] for each in answers if isinstance(each, tuple)]
        stage.expect(set(statuses) <= {200, 503}, f"exhausted, it answers {set(statuses)}")
        stage.expect(took < 12, f"exhausted, it takes {took:.0f} s to say so")


async def restart_both(stage: Stage) -> None:
    """A deployment: what was accepted is answered, and nobody is told anything wrong."""
    stage.book.is_graceful = True
    for api in stage.cluster.apis:
        async with stage.fault("SIGTERM under load"):
            api.wanted = False
            took = await asyncio.to_thread(api.stop)
            stage.expect(took <= 10, f"{api.name} took {took:.1f} s to end")
            await asyncio.to_thread(api.start)
            await asyncio.sleep(1)
    stage.book.is_graceful = False


async def retain_while_flushing(stage: Stage) -> None:
    """Twenty runs of retention, each with old events of its own to drop."""
    async with stage.fault("retention, twenty times"):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.retaining", "20"),
            env={**stage.cluster.workers[0].environment, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
        )
        told, _ = await process.communicate()
    stage.expect(process.returncode == 0, f"retention ended with {process.returncode}")
    stage.expect(b"dropped 0" not in told, "retention dropped nothing")
    stage.notes.append(told.decode().strip())


async def race(stage: Stage) -> None:
    """A hundred at once, over both processes, for what only one may have."""
    first = stage.clients[0]
    assert first.admin is not None
    token = first.admin.access
    async with stage.fault("a hundred at once"):
        name = first.next_name("race")
        made = await _all_at_once(
            first.ask(
                "model",
                "POST",
                "/api/v1/models",
                token=token,
                json={"name": name, "framework": "other"},
            )
            for _ in range(100)
        )
        winners = [status for status, _, _ in made if status == 201]
        stage.expect(len(winners) == 1, f"{len(winners)} made one model")

        key, body = first.next_name("key"), {"name": first.next_name("once"), "framework": "other"}
        told = await _all_at_once(
            first.send(
                stage.dice.choice(stage.cluster.urls),
                "POST",
                "/api/v1/models",
                token=token,
                json=body,
                headers={"Idempotency-Key": key},
            )
            for _ in range(100)
        )
        ids = {answer["id"] for status, answer, _ in told if status == 201}
        others = {status for status, _, _ in told} - {201, 409, 503}
        stage.expect(len(ids) == 1, f"one Idempotency-Key made {len(ids)} models")
        stage.expect(not others, f"one Idempotency-Key was answered {others}")

        tokens = await first.sign_in("login", first.name, PASSWORD)
        assert tokens is not None
        pairs = await _all_at_once(
            first.ask(
                "refresh", "POST", "/api/v1/auth/refresh", json={"refresh_token": tokens.refresh}
            )
            for _ in range(100)
        )
        successors = {answer["refresh_token"] for status, answer, _ in pairs if status == 200}
        stage.expect(len(successors) == 1, f"one refresh token has {len(successors)} successors")


async def _all_at_once(asking: Any) -> list[tuple[int, Any, Mapping[str, str]]]:
    answers = await asyncio.gather(*asking, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(
            answer, UnansweredError | aiohttp.ClientError | TimeoutError
        ):
            raise answer
    return [answer for answer in answers if isinstance(answer, tuple)]


async def overload(stage: Stage) -> None:
    """Far more at once than there is room for: the rest is told so at once."""
    async with stage.fault("overload"):
        client = stage.clients[0]
        assert client.admin is not None
        token, refusals, slow, odd = client.admin.access, 0, 0, set()
        ends = time.monotonic() + 10

        async def ask() -> None:
            nonlocal refusals, slow
            while time.monotonic() < ends:
                url, began = stage.dice.choice(stage.cluster.urls), time.monotonic()
                try:
                    status, _, _ = await client.send(
                        url, "GET", "/api/v1/users/profile", token=token
                    )
                except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                    odd.add(type(exc).__name__)
                    continue
                if status == 503:
                    refusals += 1
                    slow += time.monotonic() - began > 5
                elif status != 200:
                    odd.add(str(status))

        await asyncio.gather(*(ask() for _ in range(600)))
        stage.notes.append(f"overload: {refusals} refused, {slow} of them late")
        stage.expect(not odd, f"overloaded, it answers {sorted(odd)}")


async def open_slow_sockets(stage: Stage) -> None:
    """A thousand heads that never end, while others work."""
    async with stage.fault("a thousand slow sockets"):
        sockets: list[asyncio.StreamWriter] = []
        port = int(stage.cluster.urls[0].rpartition(":")[2])
        for _ in range(1_000):
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow: ")
                sockets.append(writer)
        began = time.monotonic()
        async with stage.http.get(f"{stage.cluster.urls[0]}/health/live") as answer:
            stage.expect(answer.status == 200, f"liveness is {answer.status}")
        took = time.monotonic() - began
        stage.expect(took <= 1, f"liveness took {took:.1f} s")
        await asyncio.sleep(12)
        for writer in sockets:
            writer.close()


def shift_workers(seconds: int) -> Play:
    async def play(stage: Stage) -> None:
        async with stage.fault(f"workers' clocks {seconds:+} s"):
            for worker in stage.cluster.workers:
                await stage.with_environment(worker, CHAOS_CLOCK=str(seconds))
            await asyncio.sleep(6)
            for worker in stage.cluster.workers:
                await stage.with_environment(worker)

    return play


async def starve_of_files(stage: Stage) -> None:
    """A process may open no more files: it refuses, lives on, and recovers."""
    api = stage.cluster.apis[0]
    assert api.pid is not None
    process = psutil.Process(api.pid)
    async with stage.fault("no more files"):
        before = process.rlimit(resource.RLIMIT_NOFILE)
        process.rlimit(resource.RLIMIT_NOFILE, (max(process.num_fds() - 5, 16), before[1]))
        await asyncio.sleep(6)
        stage.expect(process.is_running(), "it died for want of files")
        process.rlimit(resource.RLIMIT_NOFILE, before)
        await asyncio.sleep(1)


async def pile_up(stage: Stage) -> None:
    """Workers are away while events pile up; nothing is trimmed, and all of it drains."""
    async with stage.fault("workers away"):
        for worker in stage.cluster.workers:
            worker.wanted = False
            await asyncio.to_thread(worker.kill)
        await asyncio.sleep(15)
        with stage.cluster.redis() as redis:
            waiting = int(redis.xlen(STREAM))
        stage.notes.append(f"{waiting} entries waited")
        for worker in stage.cluster.workers:
            await asyncio.to_thread(worker.start)


def at_random(seconds: float) -> Play:
    async def play(stage: Stage) -> None:
        """Anything, one after another and sometimes two at once."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            chosen = [faults.draw(stage.dice)]
            if stage.dice.random() < 0.25:
                chosen.append(faults.draw(stage.dice))
            stage.book.fault_ends = time.monotonic() + 120
            stage.notes += [fault.name for fault in chosen]
            stage.faults += len(chosen)
            done = await asyncio.gather(
                *(fault.do(stage.cluster, random.Random(stage.dice.random())) for fault in chosen),  # noqa: S311  a schedule to be repeated
                return_exceptions=True,
            )
            for failure in done:
                if isinstance(failure, Exception):
                    stage.notes.append(f"(the fault itself failed: {failure!r:.200})")
            await asyncio.sleep(stage.dice.uniform(1.2, 2.4))
        stage.cluster.heal()
        await stage.cluster.wait_until_well()
        stage.book.fault_ends = time.monotonic()

    return play


SWALLOW, SLOW = Faults(swallow=True), Faults(latency_seconds=0.2, jitter_seconds=0.2)

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "C01": Scenario(title="kill -9 API processes", play=kill_apis),
    "C02": Scenario(title="kill -9 between commit and stream", play=die_in_api("after_commit")),
    "C03": Scenario(title="kill -9 before the commit", play=die_in_api("before_commit")),
    "C04": Scenario(title="kill -9 in mid-batch", play=die_in_flush),
    "C05": Scenario(title="kill -9 Celery's processes", play=kill_celery),
    "C06": Scenario(title="a frozen flusher wakes up", play=freeze_a_flusher),
    "C07": Scenario(title="kill -9 Valkey", play=kill_valkey),
    "C08": Scenario(title="Valkey down", play=keep_valkey_down(40)),
    "C08-long": Scenario(title="Valkey down for ten minutes", play=keep_valkey_down(600)),
    "C09": Scenario(title="Valkey wiped", play=wipe_valkey),
    "C10": Scenario(title="Valkey hangs", play=hang_valkey),
    "C11": Scenario(title="Valkey's memory full", play=fill_valkey),
    "C12": Scenario(
        title="Valkey's disk full",
        play=fill_the_disk_of("valkey", room_kib=2048),
        needs_root=True,
    ),
    "C13": Scenario(title="torn append-only file", play=tear_the_aof),
    "C14": Scenario(title="poison", play=poison),
    "C15": Scenario(title="workers away, events pile up", play=pile_up),
    "C16": Scenario(title="kill -9 PostgreSQL", play=crash_postgres),
    "C17": Scenario(title="all connections ended, each second", play=end_connections),
    "C18": Scenario(
        title="PostgreSQL swallowed",
        play=break_links("postgres", "PostgreSQL swallowed", SWALLOW, 8),
    ),
    "C19": Scenario(
        title="PostgreSQL slow", play=break_links("postgres", "PostgreSQL slow", SLOW, 12)
    ),
    "C20": Scenario(title="cut, sliced, reset", play=cut_everything),
    "C21": Scenario(
        title="PostgreSQL's disk full",
        play=fill_the_disk_of("postgres", room_kib=24 * 1024),
        needs_root=True,
    ),
    "C22": Scenario(title="tables locked", play=lock_tables),
    "C23": Scenario(title="crossing transactions", play=cross_transactions),
    "C24": Scenario(title="pool exhausted", play=exhaust_the_pool),
    "C25": Scenario(title="rolling restart", play=restart_both),
    "C26": Scenario(title="overload", play=overload),
    "C27": Scenario(title="slow sockets", play=open_slow_sockets),
    "C28": Scenario(title="workers an hour ahead", play=shift_workers(3600)),
    "C28-back": Scenario(title="workers an hour behind", play=shift_workers(-3600)),
    "C30": Scenario(title="retention while flushing", play=retain_while_flushing),
    "C31": Scenario(title="a hundred at once", play=race),
    "C38": Scenario(title="out of files", play=starve_of_files),
    "C40": Scenario(title="anything, at random", play=at_random(60)),
}

ELSEWHERE: Final[Mapping[str, str]] = {
    "C29": "tests/integration/audit/test_flush.py drops the partition under the flush",
    "C32": "tests/integration/audit/test_tampering.py",
    "C33": "`make migrations`: a million rows in each large table, others at work meanwhile",
    "C34": "comes with `maas backup`",
    "C35": "tests/unit/user/test_tokens.py for tokens; the acceptance run for sealed secrets",
    "C36": "the acceptance run fills the disk of files, tests/unit/audit/test_spool.py its spool's",
    "C37": "tests/integration/shared/test_outgoing.py, TestNames: dead, inward, rebinding names",
    "C39": "an out-of-memory kill is SIGKILL, which is C01",
}
"""Rows of the matrix that have no scenario here, and where they are instead."""

GATE: Final = ("C02", "C03", "C04", "C07", "C16", "C25", "C31", "C40")
