"""A time without Redis, as people live through it: what they wait, and what they are told.

Everybody has an address of their own, so that the limits on sign-ins hold those they are meant for.
"""

import asyncio
import ipaddress
import itertools
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

import aiohttp
import asyncpg

from tests.acceptance.isolation import connection_arguments
from tests.pair import Api, Pair
from tests.stage import LOGIN, MODELS, PASSWORD, PROFILE, USERS, Session, Stage, staged

PEOPLE = 6
WATCHED = 8
LEAD_SECONDS = 15.0
TAIL_SECONDS = 3.0
LOOK_SECONDS = 0.5
PAUSES = {"read": 0.03, "login": 0.4, "wrong": 0.5, "model": 0.2, "denied": 0.3}
EXPECTED = {"read": 200, "login": 200, "wrong": 401, "model": 201, "denied": 403}
GUESS_PAUSE_SECONDS = 0.25


@dataclass(slots=True)
class Outage:
    """What was seen while Redis was gone, and what became of all that was acknowledged."""

    durations: dict[str, list[float]] = field(default_factory=dict)
    durations_before: dict[str, list[float]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    acknowledged: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    settled_seconds: float = 0.0
    tries: int = 0
    guesses: int = 0
    health: Counter[str] = field(default_factory=Counter)
    alive: Counter[int] = field(default_factory=Counter)
    asked: int = 0
    accepted: list[str] = field(default_factory=list)

    def count(self, kind: str) -> int:
        return len(self.durations.get(kind, ()))

    def p99(self, kind: str) -> float:
        return _p99(self.durations[kind])

    def p99_before(self, kind: str) -> float:
        return _p99(self.durations_before[kind])

    @property
    def readiness(self) -> str:
        return ", ".join(f"{what} {count} times" for what, count in self.health.items())

    @property
    def liveness(self) -> str:
        return ", ".join(f"{status} {count} times" for status, count in self.alive.items())

    @property
    def has_told_the_truth(self) -> bool:
        return self.health.keys() == {"200 degraded"} and self.alive.keys() == {200}


def _p99(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=100, method="inclusive")[98]


@dataclass(slots=True)
class Person:
    """Somebody with a place of their own on the network."""

    name: str
    address: str
    session: Session | None = None

    @property
    def headers(self) -> dict[str, str]:
        token = {} if self.session is None else self.session.headers
        return {**token, "X-Forwarded-For": self.address}


class Crowd:
    """Everybody who is busy meanwhile."""

    def __init__(self, stage: Stage) -> None:
        self.outage = Outage()
        self._stage = stage
        self._is_out = self._has_been_out = False
        self._is_over = asyncio.Event()
        self._addresses = map(str, ipaddress.ip_network("10.0.0.0/8").hosts())
        self._ended: set[str] = set()

    async def arrive(self) -> None:
        """Make the people and sign them in."""
        self._people = [await self._make("developer") for _ in range(PEOPLE)]
        self._watched = [await self._make("user") for _ in range(WATCHED)]
        for person in (*self._people, *self._watched):
            person.session = await self._sign_in(person)
        self._target = await self._make("user")

    async def live_through(self, seconds: float) -> None:
        """Be busy before, during and after; Redis is killed and comes back on its own file."""
        valkey, apis = self._stage.pair.valkey, self._stage.pair.apis
        async with asyncio.TaskGroup() as group:
            for api, kind in itertools.product(apis, PAUSES):
                group.create_task(self._be_busy(api, kind))
            for api, person in itertools.product(apis, self._watched):
                group.create_task(self._watch(api, person))
            await self._end(self._watched[: WATCHED // 2])
            await asyncio.sleep(LEAD_SECONDS)
            await asyncio.to_thread(valkey.kill)
            self._is_out = self._has_been_out = True
            lookers = [group.create_task(self._look(api)) for api in apis]
            guesser = group.create_task(self._guess())
            ending = group.create_task(self._end(self._watched[WATCHED // 2 :]))
            await asyncio.sleep(seconds)
            self._is_out = False
            await asyncio.gather(*lookers, guesser, ending)
            await asyncio.to_thread(valkey.start)
            await asyncio.sleep(TAIL_SECONDS)
            self._is_over.set()

    async def _make(self, role: str) -> Person:
        name, _ = await self._stage.make_person(role)
        return Person(name, next(self._addresses))

    async def _sign_in(self, person: Person) -> Session:
        client = self._stage.client(self._stage.pair.apis[0])
        answer = await client.post(
            LOGIN,
            json={"username": person.name, "password": PASSWORD},
            headers={"X-Forwarded-For": person.address},
        )
        body = answer.raise_for_status().json()
        return Session(access_token=body["access_token"], refresh_token=body["refresh_token"])

    async def _ask(
        self,
        api: Api,
        path: str,
        headers: Mapping[str, str],
        body: Mapping[str, str] | None = None,
    ) -> int:
        method = "GET" if body is None else "POST"
        async with self._stage.crowd.request(
            method, f"{api.url}{path}", json=body, headers=headers
        ) as answer:
            await answer.read()
            return answer.status

    async def _be_busy(self, api: Api, kind: str) -> None:
        people = itertools.cycle(self._people)
        while not self._is_over.is_set():
            request_id = f"outage-{secrets.token_hex(8)}"
            path, headers, body = self._request(kind, next(people))
            is_out, began = self._is_out, time.monotonic()
            try:
                status = await self._ask(api, path, {**headers, "X-Request-ID": request_id}, body)
            except aiohttp.ClientError as exc:
                self.outage.failures[f"{kind}: {type(exc).__name__}"] += 1
            else:
                self._note(kind, status, request_id)
                seen = self.outage.durations if is_out else self.outage.durations_before
                # Once it is back, it is neither.
                if is_out or not self._has_been_out:
                    seen.setdefault(kind, []).append(time.monotonic() - began)
            await asyncio.sleep(PAUSES[kind])

    def _request(
        self, kind: str, person: Person
    ) -> tuple[str, dict[str, str], dict[str, str] | None]:
        if kind == "read":
            return PROFILE, person.headers, None
        if kind == "denied":
            return USERS, person.headers, None
        if kind == "model":
            name = f"load/{secrets.token_hex(8)}"
            return MODELS, person.headers, {"name": name, "framework": "other"}
        name, password, address = person.name, PASSWORD, person.address
        if kind == "wrong":
            # Nobody's name, from where nobody was: held by no counter.
            name, password, address = secrets.token_hex(8), "not it", next(self._addresses)
        return LOGIN, {"X-Forwarded-For": address}, {"username": name, "password": password}

    def _note(self, kind: str, status: int, request_id: str) -> None:
        if status != EXPECTED[kind]:
            self.outage.failures[f"{kind}: {status}"] += 1
        elif kind != "read":
            self.outage.acknowledged.add(request_id)

    async def _guess(self) -> None:
        """Guess one account's password at both processes, never from the same address."""
        for api in itertools.cycle(self._stage.pair.apis):
            if not self._is_out:
                return
            body = {"username": self._target.name, "password": "not it"}
            headers = {"X-Forwarded-For": next(self._addresses)}
            status = await self._ask(api, LOGIN, headers, body)
            self.outage.tries += 1
            self.outage.guesses += status == 401
            if status not in {401, 429}:
                self.outage.failures[f"guess: {status}"] += 1
            await asyncio.sleep(GUESS_PAUSE_SECONDS)

    async def _look(self, api: Api) -> None:
        """Ask one process how it is, as a load balancer would."""
        while self._is_out:
            async with self._stage.crowd.get(f"{api.url}/health/ready") as answer:
                told = (await answer.json())["status"]
                self.outage.health[f"{answer.status} {told}"] += 1
            async with self._stage.crowd.get(f"{api.url}/health/live") as answer:
                self.outage.alive[answer.status] += 1
            await asyncio.sleep(LOOK_SECONDS)

    async def _end(self, people: Sequence[Person]) -> None:
        """Sign people out, on the two processes in turn."""

        async def end(api: Api, person: Person) -> None:
            request_id = f"outage-{secrets.token_hex(8)}"
            headers = {**person.headers, "X-Request-ID": request_id}
            status = await self._ask(api, "/api/v1/auth/logout", headers, {})
            if status == 204:
                self._ended.add(person.name)
                self.outage.acknowledged.add(request_id)
            else:
                self.outage.failures[f"logout: {status}"] += 1

        turns = zip(itertools.cycle(self._stage.pair.apis), people, strict=False)
        await asyncio.gather(*(end(api, person) for api, person in turns))

    async def _watch(self, api: Api, person: Person) -> None:
        """Use a session until the end, and note whether it is let in once it has ended."""
        while not self._is_over.is_set():
            has_ended = person.name in self._ended
            try:
                status = await self._ask(api, PROFILE, person.headers)
            except aiohttp.ClientError as exc:
                self.outage.failures[f"watch: {type(exc).__name__}"] += 1
                continue
            if has_ended:
                self.outage.asked += 1
                if status != 401:
                    self.outage.accepted.append(f"{api.name}: {status}")
            await asyncio.sleep(0.1)


async def live_through(pair: Pair, *, seconds: float, settle_seconds: float) -> Outage:
    """Kill Redis for so long under load; return when the trail holds all that was acknowledged."""
    async with staged(pair) as stage:
        crowd = Crowd(stage)
        await crowd.arrive()
        await crowd.live_through(seconds)
    await _settle(pair, crowd.outage, settle_seconds)
    return crowd.outage


async def _settle(pair: Pair, outage: Outage, seconds: float) -> None:
    """Wait until each acknowledged request has a row, and tell which have none or two."""
    connection: Any = await asyncpg.connect(**connection_arguments(pair.database.system))
    began = time.monotonic()
    try:
        while True:
            rows = await connection.fetch(
                "SELECT request_id, count(*) AS rows FROM audit_log"
                " WHERE request_id LIKE 'outage-%' GROUP BY 1"
            )
            found = {row["request_id"]: row["rows"] for row in rows}
            outage.settled_seconds = time.monotonic() - began
            if outage.acknowledged <= found.keys() or outage.settled_seconds > seconds:
                break
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await connection.close()
    outage.missing = sorted(outage.acknowledged - found.keys())
    outage.doubled = sorted(each for each, count in found.items() if count > 1)
