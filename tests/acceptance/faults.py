"""Processes are killed with -9 under load; afterwards every acknowledged step has one audit row.

The load writes down what was acknowledged and what was left open, outside of the platform, and
gives each request its id, so that even one that was never answered can be asked for.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil

from tests.acceptance.isolation import connection_arguments
from tests.acceptance.platforms import Person, Platform, Role, running
from tests.acceptance.verdict import Verdict, all_of

CLIENTS = 6
LOAD_SECONDS = 20.0
KILL_EVERY_SECONDS = (0.7, 1.6)
SETTLE_SECONDS = 60.0
AIMED_KILLS = 4
BATCH_SECONDS = 3.0
PAGE = 200

Kill = Callable[[Platform], bool]


@dataclass(slots=True)
class Ledger:
    """What the clients know: answered, and asked without ever hearing an answer."""

    acknowledged: dict[str, str | None] = field(default_factory=dict)
    unheard: dict[str, str] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def heard(self, request_id: str, status: int, *, model: str | None) -> None:
        with self.lock:
            self.statuses[status] += 1
            # A refusal with 503 says nothing about whether the change was made before.
            if status in {200, 201, 401, 409}:
                self.acknowledged[request_id] = model if status == httpx.codes.CREATED else None
            elif model is not None:
                self.unheard[request_id] = model

    def lost(self, request_id: str, *, model: str | None) -> None:
        with self.lock:
            self.unheard[request_id] = model or ""


def api_is_killed(folder: Path) -> Verdict:
    """Kill the API again and again right after a commit, and then at random under load."""
    ledger = Ledger()
    with running(folder) as platform:
        person = platform.sign_in()
        recoveries = []
        for number in range(AIMED_KILLS):
            _kill_after_commit(platform, person, ledger, number)
            recoveries.append(platform.wait_until_ready())
        kills = _load(platform, person, ledger, lambda up: up.kill("serve"), calm=True)
        platform.wait_until_ready()
        rows, models = _settle(person, ledger)
    # Recovery is that of the first kill: a child that keeps dying is started ever later, by design.
    unheard = sum(1 for name in ledger.unheard.values() if name in models)
    return _judge(
        ledger,
        rows,
        models,
        # Each of these is one kill: the change was committed, and nobody heard of it.
        kills=min(unheard, AIMED_KILLS),
        recovery=recoveries[0],
        manner=f"between commit and answer and {kills} at random",
    )


def _kill_after_commit(platform: Platform, person: Person, ledger: Ledger, number: int) -> None:
    """Kill the API at the moment its commit can be seen; it has not answered yet, or just has."""
    url = platform.environment_of("serve")["MAAS_DATABASE__SYSTEM_URL"]
    request_id, model = f"load-aimed-{number}", f"{person.name}/load-aimed-{number}"
    with person.client() as client:
        # The first request after a start opens connections, which would blur the aim.
        client.get("/api/v1/users/profile").raise_for_status()
        asking = threading.Thread(target=_ask_once, args=(client, ledger, request_id, model))
        asyncio.run(_kill_when_committed(platform, url, asking))
        asking.join(30)


async def _kill_when_committed(platform: Platform, url: str, asking: threading.Thread) -> None:
    victims = platform.of_role("serve")
    connection: Any = await asyncpg.connect(**connection_arguments(url))
    try:
        started = await connection.fetchval("SELECT clock_timestamp()")
        query = "SELECT EXISTS (SELECT FROM audit_outbox WHERE created_at > $1)"
        statement = await connection.prepare(query)
        asking.start()
        deadline = time.monotonic() + 5
        while not await statement.fetchval(started) and time.monotonic() < deadline:
            pass
        for victim in victims:
            with suppress(psutil.Error):
                victim.kill()
    finally:
        await connection.close()


def _ask_once(client: httpx.Client, ledger: Ledger, request_id: str, model: str) -> None:
    try:
        answer = _ask(client, request_id, model)
    except httpx.HTTPError:
        ledger.lost(request_id, model=model)
    else:
        ledger.heard(request_id, answer.status_code, model=model)


def worker_is_killed(folder: Path) -> Verdict:
    return _under_load(folder, _kill_in_mid_batch, manner="in mid-batch")


def _kill_in_mid_batch(platform: Platform) -> bool:
    """Kill the worker while its transaction is open; tell whether one was seen."""
    victims = platform.of_role("worker")
    if not victims:
        return False
    url = platform.environment_of("serve")["MAAS_DATABASE__SYSTEM_URL"]
    is_seen = asyncio.run(_see_a_batch(url))
    for victim in victims:
        with suppress(psutil.Error):
            victim.kill()
    return is_seen


async def _see_a_batch(url: str) -> bool:
    connection: Any = await asyncpg.connect(**connection_arguments(url))
    try:
        statement = await connection.prepare(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = current_user"
            " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL)"
        )
        deadline = time.monotonic() + BATCH_SECONDS
        while time.monotonic() < deadline:
            if await statement.fetchval():
                return True
        return False
    finally:
        await connection.close()


def valkey_is_killed(folder: Path) -> Verdict:
    return _under_load(folder, lambda platform: platform.kill(_VALKEY))


_VALKEY: Role = "valkey-server"


def _under_load(folder: Path, kill: Kill, *, manner: str = "") -> Verdict:
    ledger = Ledger()
    with running(folder) as platform:
        person = platform.sign_in()
        kills = _load(platform, person, ledger, kill)
        recovery = platform.wait_until_ready()
        rows, models = _settle(person, ledger)
    return _judge(ledger, rows, models, kills=kills, recovery=recovery, manner=manner)


def _load(
    platform: Platform, person: Person, ledger: Ledger, kill: Kill, *, calm: bool = False
) -> int:
    """Let clients be busy while something is killed now and then; tell how often.

    Where the victim is what the clients talk to, `calm` lets it come back before the next time.
    """
    end = threading.Event()
    clients = [
        threading.Thread(target=_be_busy, args=(person, number, ledger, end), daemon=True)
        for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    kills = 0
    deadline = time.monotonic() + LOAD_SECONDS
    while time.monotonic() < deadline:
        if calm:
            platform.wait_until_ready()
        time.sleep(random.uniform(*KILL_EVERY_SECONDS))  # noqa: S311  a rhythm, not a secret
        kills += kill(platform)
    end.set()
    for client in clients:
        client.join(60)
    return kills


def _be_busy(person: Person, number: int, ledger: Ledger, end: threading.Event) -> None:
    with person.client() as client:
        turn = 0
        while not end.is_set():
            turn += 1
            request_id = f"load-{number}-{turn}"
            model = f"{person.name}/load-{number}-{turn}" if turn % 5 else None
            try:
                answer = _ask(client, request_id, model)
            except httpx.HTTPError:
                ledger.lost(request_id, model=model)
                time.sleep(0.05)
            else:
                ledger.heard(request_id, answer.status_code, model=model)


def _ask(client: httpx.Client, request_id: str, model: str | None) -> httpx.Response:
    headers = {"X-Request-ID": request_id}
    if model is None:
        body = {"username": request_id, "password": "not-the-password"}
        return client.post("/api/v1/auth/login", json=body, headers=headers, timeout=5)
    new = {"name": model, "framework": "other"}
    return client.post("/api/v1/models", json=new, headers=headers, timeout=5)


def _settle(person: Person, ledger: Ledger) -> tuple[Counter[str], set[str]]:
    """Wait until the trail knows all that was acknowledged, then read it and the registry."""
    deadline = time.monotonic() + SETTLE_SECONDS
    with person.client() as client:
        while True:
            events = _all_pages(client, "/api/v1/audit/logs", action="model.created")
            events += _all_pages(client, "/api/v1/audit/logs", action="auth.login")
            rows = Counter(event["request_id"] for event in events)
            if ledger.acknowledged.keys() <= rows.keys() or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        models = _all_pages(client, "/api/v1/models", q=f"{person.name}/")
    return rows, {model["name"] for model in models}


def _all_pages(client: httpx.Client, path: str, **query: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        parameters = query | {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
        page = client.get(path, params=parameters).raise_for_status().json()
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


def _judge(
    ledger: Ledger,
    rows: Counter[str],
    models: set[str],
    *,
    kills: int,
    recovery: float,
    manner: str = "",
) -> Verdict:
    missing = [each for each in ledger.acknowledged if rows[each] == 0]
    doubled = [each for each, count in rows.items() if each.startswith("load-") and count > 1]
    lost = [name for name in ledger.acknowledged.values() if name and name not in models]
    # Nobody heard how these ended; either way the change and its row must agree.
    torn = [
        each for each, name in ledger.unheard.items() if name and (name in models) != rows[each]
    ]
    broken = sum(count for status, count in ledger.statuses.items() if status == 500)
    return all_of(
        (kills > 0, f"{kills} kills {manner}".strip()),
        (len(ledger.acknowledged) > 100, f"{len(ledger.acknowledged)} acknowledged"),
        (not missing, f"{len(missing)} without a row"),
        (not doubled, f"{len(doubled)} with two"),
        (not lost, f"{len(lost)} lost"),
        (not torn, f"{len(torn)} torn"),
        (broken == 0, f"{broken} answers of 500"),
        (recovery <= 10, f"ready again in {recovery:.1f} s"),
    )
