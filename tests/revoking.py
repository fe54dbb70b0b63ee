"""Takes access away from many people under load, and counts who is let through afterwards.

Every token is in use on both processes before, while and after its right goes: a request counts
from the moment on at which the answer to the act that took the right away has been read.
"""

import asyncio
import itertools
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self, TypeAlias

import aiohttp
import httpx
from redis import Redis

from tests.pair import Api
from tests.stage import (
    MODELS,
    PASSWORD,
    PROFILE,
    REFRESH,
    ROLES,
    USERS,
    Session,
    Stage,
)

NEW_PASSWORD = "another long enough phrase"
WARM_SECONDS = 20.0
RESTART_SECONDS = 1.5
TRIES = 5
LOAD_PAUSE_SECONDS = 0.05


@dataclass(slots=True, kw_only=True)
class Victim:
    """Somebody who is about to lose something; `first` always loses it."""

    name: str
    id: str
    role: str
    first: Session
    second: Session
    stolen: str | None = None
    let_in: Counter[str] = field(default_factory=Counter)
    acknowledged_at: float | None = None


@dataclass(slots=True)
class Tally:
    """What became of requests that started after an acknowledgement, and of everybody else's.

    `revived` counts the sessions that an old file of Redis called valid though they had ended.
    """

    refused: int = 0
    unavailable: int = 0
    unanswered: int = 0
    accepted: list[str] = field(default_factory=list)
    odd: Counter[str] = field(default_factory=Counter)
    wrongly_refused: list[str] = field(default_factory=list)
    bystanders: Counter[int] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    revived: int = 0

    @property
    def asked(self) -> int:
        """Requests after an acknowledgement that were answered, one way or the other."""
        return self.refused + self.unavailable + len(self.accepted) + self.odd.total()

    def __iadd__(self, other: Self) -> Self:
        self.refused += other.refused
        self.unavailable += other.unavailable
        self.unanswered += other.unanswered
        self.accepted += other.accepted
        self.odd += other.odd
        self.wrongly_refused += other.wrongly_refused
        self.bystanders += other.bystanders
        self.acts += other.acts
        self.revived += other.revived
        return self


Act: TypeAlias = Callable[[Stage, httpx.AsyncClient, Victim], Awaitable[httpx.Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A way to lose access: who is refused what afterwards, and whether the second session stays.

    With no role, the person gets one of their own. `make` makes victims of another sort.
    """

    name: str
    act: Act
    done: int = 204
    role: str | None = "user"
    path: str = PROFILE
    refused: int = 401
    second_stays: bool = False
    make: "Callable[[Stage, Kind], Awaitable[Victim]] | None" = None


async def _logout(_: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    return await client.post("/api/v1/auth/logout", headers=victim.first.headers)


async def _logout_all(_: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    return await client.post("/api/v1/auth/logout-all", headers=victim.second.headers)


async def _end_session(_: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    sessions = await client.get("/api/v1/auth/sessions", headers=victim.second.headers)
    items = sessions.raise_for_status().json()["items"]
    other = next(item["id"] for item in items if not item["is_current"])
    return await client.delete(f"/api/v1/auth/sessions/{other}", headers=victim.second.headers)


async def _change_password(_: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    return await client.post(
        "/api/v1/users/password",
        json={"current_password": PASSWORD, "new_password": NEW_PASSWORD},
        headers=victim.second.headers,
    )


async def _replay_stolen(_: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    return await client.post(REFRESH, json={"refresh_token": victim.stolen})


async def _suspend(stage: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    return await client.put(
        f"{USERS}/{victim.id}/suspension", json={"reason": "Asked for."}, headers=stage.admin
    )


async def _remove(stage: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    return await client.delete(f"{USERS}/{victim.id}", headers=stage.admin)


async def _reset_password(
    stage: Stage, client: httpx.AsyncClient, victim: Victim
) -> httpx.Response:
    return await client.post(f"{USERS}/{victim.id}/password-reset", json={}, headers=stage.admin)


async def _take_role(stage: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    return await client.put(
        f"{USERS}/{victim.id}/roles",
        json={"roles": ["user"]},
        headers={**stage.admin, "If-Match": "*"},
    )


async def _narrow_role(stage: Stage, client: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    return await client.put(
        f"{ROLES}/{victim.role}",
        json={"permissions": ["model:read"]},
        headers={**stage.admin, "If-Match": "*"},
    )


STOLEN = Kind(name="stolen token replayed", act=_replay_stolen, done=401, second_stays=True)
KINDS = (
    Kind(name="logout", act=_logout, second_stays=True),
    Kind(name="logout-all", act=_logout_all),
    Kind(name="session ended", act=_end_session, second_stays=True),
    Kind(name="password changed", act=_change_password, second_stays=True),
    Kind(name="password reset", act=_reset_password, done=200),
    Kind(name="suspended", act=_suspend, done=200),
    Kind(name="removed", act=_remove),
    STOLEN,
    Kind(name="role taken", act=_take_role, done=200, role="auditor", path=USERS, refused=403),
    Kind(name="role narrowed", act=_narrow_role, done=200, role=None, path=USERS, refused=403),
)


async def make_victim(stage: Stage, kind: Kind) -> Victim:
    """Make somebody who has what this kind takes away, signed in twice."""
    if kind.make is not None:
        return await kind.make(stage, kind)
    role = kind.role
    if role is None:
        role = f"reader{next(stage.numbers)}"
        await stage.post(ROLES, {"name": role, "permissions": ["user:read"]})
    name, person_id = await stage.make_person(role)
    first, second = [await stage.sign_in(name, PASSWORD) for _ in range(2)]
    victim = Victim(name=name, id=person_id, role=role, first=first, second=second)
    if kind is STOLEN:
        victim.stolen = first.refresh_token
        for _ in range(2):
            body = await stage.post(REFRESH, {"refresh_token": victim.first.refresh_token})
            victim.first = Session(
                access_token=body["access_token"], refresh_token=body["refresh_token"]
            )
    return victim


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long what was taken away is tried again; entries of before live five seconds."""

    linger_seconds: float
    outage_seconds: float
    pause_seconds: float


class Round:
    """One set of victims, watched from before their loss until the round ends."""

    def __init__(
        self, stage: Stage, *, label: str, kinds: Sequence[Kind], each: int, pace: Pace
    ) -> None:
        self.stage = stage
        self.tally = Tally()
        self._label, self._pace = label, pace
        self._wanted = [kind for kind in kinds for _ in range(each)]
        self._victims: list[tuple[Kind, Victim]] = []
        self._watching: list[asyncio.Task[None]] = []
        self._is_over = asyncio.Event()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Make the victims, and have all they hold in use on both processes in the block."""
        victims = await asyncio.gather(*(make_victim(self.stage, kind) for kind in self._wanted))
        self._victims = list(zip(self._wanted, victims, strict=True))
        bystander, _ = await self.stage.make_person("developer")
        calm = [await self.stage.sign_in(bystander, PASSWORD, at=at) for at in (0, 1)]
        async with asyncio.TaskGroup() as group:
            for api in self.stage.pair.apis:
                for kind, victim in self._victims:
                    group.create_task(self._watch(api, kind, victim))
                for session in calm:
                    group.create_task(self._work(api, session))
            try:
                await self._until_warm()
                yield
            finally:
                self._is_over.set()
        await self._check_who_stays()

    def ended_keys(self) -> list[str]:
        """Name what Redis holds of those who have lost it all by now."""
        return [
            victim.first.key for _, victim in self._victims if victim.acknowledged_at is not None
        ]

    async def revoke_all(self) -> None:
        """Take everything away at once, on the two processes in turn, and read all the answers."""
        apis = itertools.cycle(self.stage.pair.apis)
        async with asyncio.TaskGroup() as group:
            for (kind, victim), api in zip(self._victims, apis, strict=False):
                group.create_task(self._revoke(api, kind, victim))

    async def go_on(self, seconds: float, *, until_asked: int = 0) -> None:
        """Keep everything in use for so long, and until so many requests were answered."""
        end = time.monotonic() + seconds
        while time.monotonic() < end or self.tally.asked < until_asked:  # noqa: ASYNC110  a clock, too
            await asyncio.sleep(0.05)

    async def _revoke(self, api: Api, kind: Kind, victim: Victim) -> None:
        answer = await kind.act(self.stage, self.stage.client(api), victim)
        for _ in range(TRIES):
            # Not done, and not acknowledged: on a busy machine acts wait for one another too long.
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            answer = await kind.act(self.stage, self.stage.client(api), victim)
        if answer.status_code != kind.done:
            self.tally.odd[f"{kind.name} by {api.name}: {answer.status_code} {answer.text}"] += 1
            return
        victim.acknowledged_at = time.monotonic()
        self.tally.acts[kind.name] += 1

    async def _until_warm(self) -> None:
        """Wait until every victim has been let in by both processes with all they hold."""
        deadline = time.monotonic() + WARM_SECONDS
        names = {api.name for api in self.stage.pair.apis}
        while any(victim.let_in.keys() != names for _, victim in self._victims):
            if time.monotonic() > deadline:
                message = "somebody was not let in before anything was taken away"
                raise RuntimeError(message)
            await asyncio.sleep(0.02)

    async def _watch(self, api: Api, kind: Kind, victim: Victim) -> None:
        sessions = [victim.first] if kind.second_stays else [victim.first, victim.second]
        while not self._is_over.is_set():
            for session in sessions:
                since = victim.acknowledged_at
                began = time.monotonic()
                try:
                    status = await self.stage.ask(api, kind.path, session)
                except aiohttp.ClientError:
                    self.tally.unanswered += since is not None
                    continue
                if since is not None:
                    self._note(api, kind, status, began - since)
                elif status == httpx.codes.OK:
                    victim.let_in[api.name] += 1
            await asyncio.sleep(self._pace.pause_seconds)

    def _note(self, api: Api, kind: Kind, status: int, late: float) -> None:
        where = f"{self._label}: {kind.name}, asking {api.name}"
        if status == kind.refused:
            self.tally.refused += 1
        elif status == httpx.codes.SERVICE_UNAVAILABLE:
            self.tally.unavailable += 1
        elif status == httpx.codes.OK:
            self.tally.accepted.append(f"{where} {late:.2f} s after")
        else:
            self.tally.odd[f"{where}: {status}"] += 1

    async def _work(self, api: Api, session: Session) -> None:
        """Be somebody whom nothing of this concerns, and who is always let in."""
        number = 0
        while not self._is_over.is_set():
            number += 1
            name = f"load/{secrets.token_hex(8)}"
            body = None if number % 5 else {"name": name, "framework": "other"}
            try:
                status = await self.stage.ask(
                    api, PROFILE if body is None else MODELS, session, body=body
                )
            except aiohttp.ClientError:
                status = 0
            self.tally.bystanders[status] += 1
            await asyncio.sleep(LOAD_PAUSE_SECONDS)

    async def _check_who_stays(self) -> None:
        """Ask both processes for what nobody took away."""
        for kind, victim in self._victims:
            left = [victim.second] if kind.second_stays else []
            if kind.refused == httpx.codes.FORBIDDEN:
                left = [victim.first, victim.second]
            for api, session in itertools.product(self.stage.pair.apis, left):
                answer = await self.stage.client(api).get(PROFILE, headers=session.headers)
                if answer.status_code != httpx.codes.OK:
                    self.tally.wrongly_refused.append(f"{self._label}: {kind.name}, {api.name}")


async def in_calm(round_: Round, pace: Pace, asked: int) -> None:
    await round_.revoke_all()
    await round_.go_on(pace.linger_seconds, until_asked=asked)


async def on_an_old_file(round_: Round, pace: Pace, asked: int) -> None:
    """Have Redis come back with what it knew before: everybody still let in."""
    valkey = round_.stage.pair.valkey
    await asyncio.to_thread(valkey.keep_copy)
    revoking = asyncio.create_task(round_.revoke_all())
    # Later, what the copy holds would have died of itself.
    await asyncio.wait([revoking], timeout=RESTART_SECONDS)
    ended = round_.ended_keys()

    def restart() -> int:
        valkey.kill()
        valkey.put_copy_back()
        valkey.start()
        with Redis(unix_socket_path=str(valkey.socket), password=valkey.password) as client:
            held = client.mget(ended) if ended else []
        return sum(entry is not None and entry.startswith(b"v") for entry in held)

    round_.tally.revived += await asyncio.to_thread(restart)
    await revoking
    await round_.go_on(pace.linger_seconds, until_asked=asked)


async def without_redis(round_: Round, pace: Pace, asked: int) -> None:
    """Kill Redis, and bring it back before the acts of meanwhile are acknowledged."""
    valkey = round_.stage.pair.valkey
    await asyncio.to_thread(valkey.kill)
    revoking = asyncio.create_task(round_.revoke_all())
    await asyncio.sleep(pace.outage_seconds)
    await asyncio.to_thread(valkey.start)
    await revoking
    await round_.go_on(pace.linger_seconds, until_asked=asked)


async def with_redis_silent(round_: Round, pace: Pace, asked: int) -> None:
    """Have no answer come from Redis; it comes back right after the acknowledgements."""
    links = [api.link for api in round_.stage.pair.apis]
    for link in links:
        link.blackhole()
    await round_.revoke_all()
    for link in links:
        link.heal()
    await round_.go_on(pace.linger_seconds, until_asked=asked)


async def with_one_cut_off(round_: Round, pace: Pace, asked: int) -> None:
    """Cut one process off from Redis, and only then and there take everything away."""
    link = round_.stage.pair.apis[1].link
    link.blackhole()
    await round_.revoke_all()
    await round_.go_on(pace.linger_seconds / 2, until_asked=asked)
    link.heal()
    await round_.go_on(pace.linger_seconds / 2)


Condition: TypeAlias = Callable[[Round, Pace, int], Awaitable[None]]
"""Takes everything away as Redis fares so, and goes on until so many requests were answered."""

CONDITIONS: Mapping[str, Condition] = {
    "calm": in_calm,
    "old AOF": on_an_old_file,
    "Redis dead": without_redis,
    "Redis silent": with_redis_silent,
    "one cut off": with_one_cut_off,
}


async def take_away(
    stage: Stage, condition: str, *, kinds: Sequence[Kind], each: int, pace: Pace, asked: int
) -> Tally:
    """Take access away in one condition; return once `asked` requests after it were answered."""
    round_ = Round(stage, label=condition, kinds=kinds, each=each, pace=pace)
    async with round_.watched():
        await CONDITIONS[condition](round_, pace, asked)
    return round_.tally
