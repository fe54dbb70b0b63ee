"""What must hold after any fault: I1 to I12 of the guarantees, checked from outside.

The chain is recomputed here with nothing of the product's but the formula, so that a mistake in its
verifier cannot hide one in its flush.
"""

import asyncio
import hashlib
import subprocess
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

import aiohttp
import psutil
from redis.exceptions import RedisError, ResponseError

from tests.chaos.cluster import Cluster, is_ok
from tests.chaos.load import ACTS, CANARY, Book
from tests.chaos.programs import Program

SETTLE_SECONDS: Final = 60.0
SHOWN: Final = 5
GROWTH_BYTES: Final = 50 * 1024 * 1024
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
STREAM: Final = "maas:v1:audit:events"
INCOMPLETE: Final = 2
SOUND: Final = "INTEGRITY    ok"

Found: TypeAlias = dict[str, list[str]]


@dataclass(slots=True)
class Report:
    """What was counted, and what was broken, by invariant."""

    broken: Found = field(default_factory=lambda: defaultdict(list))
    figures: dict[str, Any] = field(default_factory=dict)

    def check(self, invariant: str, found: Iterable[str]) -> None:
        self.broken[invariant] += list(found)

    @property
    def is_whole(self) -> bool:
        return not any(self.broken.values())

    def lines(self) -> list[str]:
        lines = [f"{name}: {value}" for name, value in self.figures.items()]
        for invariant, found in sorted(self.broken.items()):
            lines += [f"BROKEN {invariant}: {text}" for text in found[:SHOWN]]
            if len(found) > SHOWN:
                lines.append(f"BROKEN {invariant}: and {len(found) - SHOWN} more")
        return lines


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds, to be compared later."""

    pid: int
    memory_bytes: int
    files: int

    @classmethod
    def of(cls, pid: int) -> "Usage":
        process = psutil.Process(pid)
        return cls(pid, process.memory_info().rss, process.num_fds())


def usage_of(cluster: Cluster) -> dict[str, Usage]:
    return {api.name: Usage.of(api.pid) for api in cluster.apis if api.pid is not None}


async def settle(cluster: Cluster, *, seconds: float = SETTLE_SECONDS) -> float:
    """Wait until nothing waits any more, without any help; tell for how long."""
    began = time.monotonic()
    await cluster.wait_until_well(seconds=seconds)
    while True:
        left = await _waiting(cluster)
        took = time.monotonic() - began
        if not any(left.values()) or took > seconds:
            return took
        await asyncio.sleep(0.2)


async def _waiting(cluster: Cluster) -> dict[str, int]:
    async with cluster.superuser() as connection:
        outbox = await connection.fetchval("SELECT count(*) FROM audit_outbox")
    return {"outbox": outbox, "stream": _stream_length(cluster), "spool": len(_spools(cluster))}


def _stream_length(cluster: Cluster) -> int:
    try:
        with cluster.redis() as redis:
            return int(redis.xlen(STREAM))
    except RedisError:
        return -1


def _spools(cluster: Cluster) -> list[str]:
    """List the spool files that hold anything."""
    return [
        str(file)
        for folder in cluster.data_dirs
        for file in folder.glob("audit/spool/*.spool")
        if file.stat().st_size
    ]


async def verify(
    cluster: Cluster,
    book: Book,
    *,
    before: Mapping[str, Usage] | None = None,
    dead_letters: int = 0,
    excuse_class_b: bool = False,
    settled_seconds: float = 0.0,
) -> Report:
    """Check everything; `excuse_class_b` is for faults that may lose what had no transaction."""
    report = Report()
    report.figures["acknowledged"] = len(book.acknowledged)
    report.figures["unknown"] = len(book.unknown)
    async with cluster.superuser() as connection:
        rows = await connection.fetch(
            "SELECT seq, request_id, action, outcome, recorded_at, occurred_at, payload"
            " FROM audit_log ORDER BY seq"
        )
        chain = await connection.fetch("SELECT * FROM audit_chain ORDER BY seq")
        head = await connection.fetchrow("SELECT seq, hash FROM audit_head")
        tombstones = await connection.fetch("SELECT first_seq, packed FROM audit_tombstones")
        report.figures["events"] = len(rows)
        _check_acknowledged(report, book, rows, excuse_class_b=excuse_class_b)
        await _check_both_ways(report, connection)
        _check_chain(report, rows, chain, head, buried=_buried(tombstones))
        letters = await connection.fetchval("SELECT count(*) FROM audit_dead_letter")
    if letters != dead_letters:
        report.check("I7", [f"{letters} dead letters, {dead_letters} were planted"])
    left = await _waiting(cluster)
    report.check("I7", [f"{name}: {count} left" for name, count in left.items() if count])
    report.check("I7", _pending(cluster))
    _check_delay(report, book, rows)
    report.check("I8", book.violations)
    known = {row["request_id"] for row in rows}
    report.check("I8", [f"{each} was accepted, then dropped" for each in book.dropped & known])
    await _check_product_verdict(report, cluster, dead_letters=dead_letters)
    if before:
        report.check("I10", _growth(cluster, before))
    report.check("I11", await asyncio.to_thread(_find_canary, cluster))
    report.figures["settled after (s)"] = round(settled_seconds, 1)
    return report


def _check_acknowledged(
    report: Report, book: Book, rows: list[Any], *, excuse_class_b: bool
) -> None:
    """I1, I2: each acknowledged act has exactly one row, and it says what was answered."""
    by_request: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        by_request[row["request_id"]].append(row)
    lost, doubled, wrong = [], [], []
    for request_id, (kind, status) in book.acknowledged.items():
        act, found = ACTS[kind], by_request.get(request_id, [])
        if not found:
            has_transaction = act.outcomes[status] == "success" and kind != "read"
            if has_transaction or not excuse_class_b:
                lost.append(f"{request_id}: {kind} ({status}) has no row")
        elif len(found) > 1:
            doubled.append(f"{request_id}: {kind} has {len(found)} rows")
        elif (found[0]["action"], found[0]["outcome"]) != (act.action, act.outcomes[status]):
            row = found[0]
            wrong.append(f"{request_id}: {kind} ({status}) is {row['action']} {row['outcome']}")
    doubled += [
        f"{request_id}: {kind} has {len(by_request[request_id])} rows"
        for request_id, kind in book.unknown.items()
        if len(by_request.get(request_id, [])) > 1
    ]
    report.figures["lost"], report.figures["doubled"] = len(lost), len(doubled)
    report.check("I1", lost)
    report.check("I1", wrong)
    report.check("I2", doubled)


# Each pair: rows that a success must have made, and successes that must have made rows.
_PAIRS: Final = {
    "model": ("SELECT id::text FROM models", "model.created", "resource_id"),
    "session": ("SELECT id::text FROM sessions", "auth.login", "resource_id"),
    "account": (
        "SELECT id::text FROM accounts WHERE username <> 'root'",
        "user.created",
        "resource_id",
    ),
    "role": (
        "SELECT name FROM roles WHERE name LIKE 'r-%'",
        "role.created",
        "resource_id",
    ),
}


async def _check_both_ways(report: Report, connection: Any) -> None:
    """I3: every success has what it made, everything made has its success."""
    phantoms: list[str] = []
    silent: list[str] = []
    for name, (kept_sql, action, column) in _PAIRS.items():
        kept = [row[0] for row in await connection.fetch(kept_sql)]
        logged = [
            row[0]
            for row in await connection.fetch(
                f"SELECT {column} FROM audit_log WHERE action = $1 AND outcome = 'success'",
                action,
            )
        ]
        phantoms += [f"{name} {each} has an event, and is not" for each in set(logged) - set(kept)]
        silent += [f"{name} {each} is, and has no event" for each in set(kept) - set(logged)]
        twice = [each for each, count in Counter(logged).items() if count > 1]
        report.check("I2", [f"{name} {each} was made twice" for each in twice])
    edits = await connection.fetch(
        """SELECT m.id::text, m.revision - 1 AS made, count(l.seq) AS logged
           FROM models m LEFT JOIN audit_log l ON l.resource_id = m.id::text
             AND l.action = 'model.updated' AND l.outcome = 'success'
           GROUP BY m.id, m.revision HAVING m.revision - 1 <> count(l.seq)"""
    )
    silent += [f"model {row[0]} has {row['made']} edits, {row['logged']} events" for row in edits]
    report.figures["phantoms"], report.figures["silent changes"] = len(phantoms), len(silent)
    report.check("I3", phantoms)
    report.check("I3", silent)


def _buried(tombstones: list[Any]) -> set[int]:
    """List the rows that tombstones name: a bit for each, from the first on, packed."""
    return {
        tombstone["first_seq"] + 8 * place + bit
        for tombstone in tombstones
        for place, bits in enumerate(zlib.decompress(tombstone["packed"]))
        for bit in range(8)
        if bits >> bit & 1
    }


def _check_chain(
    report: Report, rows: list[Any], chain: list[Any], head: Any, *, buried: set[int]
) -> None:
    """I4, I5: gapless, each with payload or tombstone, every hash right, the head the last."""
    payloads = {row["seq"]: row for row in rows}
    previous, expected = bytes(32), 1
    wrong: list[str] = []
    for entry in chain:
        seq = entry["seq"]
        if seq != expected:
            wrong.append(f"after {expected - 1} comes {seq}")
        row = payloads.pop(seq, None)
        if row is None:
            wrong += [f"{seq} has neither payload nor tombstone"] if seq not in buried else []
        elif hashlib.sha256(b"\x00" + row["payload"]).digest() != entry["leaf"]:
            wrong.append(f"{seq}: the leaf is not its payload's")
        elif row["recorded_at"] != entry["recorded_at"]:
            wrong.append(f"{seq}: two times of record")
        micros = ((entry["recorded_at"] - EPOCH) // timedelta(microseconds=1)).to_bytes(8, "big")
        digest = hashlib.sha256(previous + seq.to_bytes(8, "big") + micros + entry["leaf"]).digest()
        if digest != entry["row_hash"]:
            wrong.append(f"{seq}: the row hash is wrong")
        previous, expected = entry["row_hash"], seq + 1
    wrong += [f"{seq} is in the log, not in the chain" for seq in payloads]
    if head is None or (head["seq"], head["hash"]) != (expected - 1, previous):
        wrong.append("the head is not the last entry")
    report.check("I4", [text for text in wrong if "hash" not in text and "leaf" not in text])
    report.check("I5", [text for text in wrong if "hash" in text or "leaf" in text])


def _check_delay(report: Report, book: Book, rows: list[Any]) -> None:
    """I6: how long events took to be seen; bounded here only where nothing was broken."""
    delays = sorted((row["recorded_at"] - row["occurred_at"]).total_seconds() for row in rows)
    if not delays:
        return
    p99 = delays[int(len(delays) * 0.99)]
    report.figures["delay p50/p99/max (s)"] = (
        f"{delays[len(delays) // 2]:.2f}/{p99:.2f}/{delays[-1]:.2f}"
    )
    if book.is_calm and (p99 > 2 or delays[-1] > 5):
        report.check("I6", [f"p99 {p99:.2f} s, longest {delays[-1]:.2f} s"])


def _pending(cluster: Cluster) -> list[str]:
    try:
        with cluster.redis() as redis:
            summary: Any = redis.xpending(STREAM, "flush")
    except ResponseError as exc:
        return [] if "NOGROUP" in str(exc) else [str(exc)]
    return [f"{summary['pending']} entries are pending"] if summary["pending"] else []


async def _check_product_verdict(report: Report, cluster: Cluster, *, dead_letters: int) -> None:
    """Ask `maas audit verify`, which an auditor would; what was buried makes it incomplete."""
    done = await asyncio.to_thread(
        subprocess.run,
        [*map(str, cluster.apis[0].command[:3]), "audit", "verify"],
        env=dict(cluster.apis[0].environment),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    report.figures["audit verify"] = f"exit {done.returncode}"
    is_buried = dead_letters > 0 and done.returncode == INCOMPLETE and SOUND in done.stdout
    if done.returncode and not is_buried:
        report.check("I5", [f"`maas audit verify` says {(done.stdout + done.stderr)[-400:]}"])


def _growth(cluster: Cluster, before: Mapping[str, Usage]) -> list[str]:
    """I10, for processes that lived through it all."""
    found = []
    for name, now in usage_of(cluster).items():
        old = before.get(name)
        if old is None or old.pid != now.pid:
            continue
        grown = now.memory_bytes - old.memory_bytes
        if grown > GROWTH_BYTES:
            found.append(f"{name} grew by {grown // 1024**2} MiB")
        if now.files > old.files + 100:
            found.append(f"{name} holds {now.files} files, {old.files} before")
    return found


def _find_canary(cluster: Cluster) -> list[str]:
    """I11: look for passwords in every file of the cluster, its servers' own included."""
    done = subprocess.run(
        ["grep", "-rlaF", "--", CANARY, str(cluster.folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    return [f"a password is in {path}" for path in done.stdout.splitlines()]


Probe: TypeAlias = Callable[[], Awaitable[None]]


async def watch_liveness(
    cluster: Cluster, book: Book, get: Callable[[str], Awaitable[int]], is_over: Callable[[], bool]
) -> None:
    """I12: a process that runs says so, whatever else is broken."""
    up_since: dict[str, int] = {}
    while not is_over():
        for api, url in zip(cluster.apis, cluster.urls, strict=True):
            if api.pid is None or is_frozen(api.pid):
                continue
            if up_since.get(api.name) == api.starts:
                await _ask_whether_live(api, f"{url}/health/live", book, get)
            elif await asyncio.to_thread(is_ok, f"{url}/health/live"):
                # Loading takes seconds; from its first answer on it is up.
                up_since[api.name] = api.starts
        await asyncio.sleep(0.25)


async def _ask_whether_live(
    api: Program, url: str, book: Book, get: Callable[[str], Awaitable[int]]
) -> None:
    pid, starts = api.pid, api.starts
    try:
        status = await get(url)
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        # It may have been killed this very moment, and nobody has noticed yet.
        await asyncio.sleep(0.5)
        is_same = pid is not None and (api.pid, api.starts) == (pid, starts)
        if is_same and api.wanted and not is_frozen(pid or 0):
            book.violate(f"{api.name} is up, and not live: {type(exc).__name__}")
        return
    if status != 200:
        book.violate(f"{api.name} is up, and its liveness is {status}")


def is_frozen(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False
