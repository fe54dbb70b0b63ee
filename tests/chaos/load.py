"""Clients that work while things break, and write down what they were told.

The book lies outside of the system: what was acknowledged, and what nobody heard the end of. Every
request carries an id of its own, by which the trail can be asked for it.
"""

import asyncio
import json
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO, TypeAlias

import aiohttp

from tests.chaos.cluster import Cluster

CANARY: Final = f"canary-{secrets.token_hex(6)}"
"""Part of every wrong password: it must be found nowhere afterwards."""

PASSWORD: Final = f"{CANARY}-right one"
WINDOW_TAIL_SECONDS: Final = 5.0
REQUEST_SECONDS: Final = 20.0
MAX_OBJECTS: Final = 50
SHUN_SECONDS: Final = 0.5

Kind: TypeAlias = str


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What a kind of request leaves in the trail, by the status it was answered with."""

    action: str
    outcomes: Mapping[int, str]


# A change that met a twin, or the limit of a resource, is refused and recorded as a failure.
_CHANGE: Final = {200: "success", 201: "success", 204: "success", 409: "failure", 412: "failure"}
ACTS: Final[Mapping[Kind, Act]] = {
    "model": Act(action="model.created", outcomes=_CHANGE),
    "model-edit": Act(action="model.updated", outcomes=_CHANGE),
    "user": Act(action="user.created", outcomes=_CHANGE),
    "role": Act(action="role.created", outcomes=_CHANGE),
    "role-edit": Act(action="role.updated", outcomes=_CHANGE),
    "login": Act(action="auth.login", outcomes={200: "success"}),
    "wrong-login": Act(action="auth.login", outcomes={401: "failure"}),
    "denied": Act(action="model.created", outcomes={403: "denied"}),
    "refresh": Act(action="auth.refresh", outcomes={200: "success"}),
    "logout": Act(action="auth.logout", outcomes={204: "success"}),
    "read": Act(action="audit.read", outcomes={200: "success"}),
}


@dataclass(slots=True)
class Book:
    """What the clients know. Lines go to files as they come."""

    acknowledged: dict[str, tuple[Kind, int]] = field(default_factory=dict)
    unknown: dict[str, Kind] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    counts: Counter[tuple[Kind, int]] = field(default_factory=Counter)
    refused: int = 0
    fault_ends: float = 0.0
    is_calm: bool = False
    is_graceful: bool = False
    dropped: set[str] = field(default_factory=set)
    """Requests nobody heard the end of while processes were stopped by the book: none was begun."""

    _file: TextIO | None = None

    def open(self, folder: Path) -> None:
        self._file = (folder / "book.ndjson").open("w", encoding="utf-8")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def heard(self, request_id: str, kind: Kind, status: int, body: object) -> None:
        self.counts[kind, status] += 1
        if status in ACTS[kind].outcomes:
            self.acknowledged[request_id] = (kind, status)
            self._note(id=request_id, kind=kind, status=status)
            return
        self.unknown[request_id] = kind
        self._note(id=request_id, kind=kind, status=status, unknown=True)
        self.violations.append(f"{request_id}: {kind} was answered {status}: {body}")

    def was_refused(self, request_id: str, kind: Kind, status: int) -> None:
        """Note an outage or a full disk: no answer to what was asked, which may have happened."""
        self.counts[kind, status] += 1
        self.refused += 1
        self.unknown[request_id] = kind
        self._note(id=request_id, kind=kind, status=status, unknown=True)
        self._judge_outage(request_id, str(status))

    def lost(self, request_id: str, kind: Kind, why: str) -> None:
        """Note a request nobody heard the end of."""
        self.counts[kind, 0] += 1
        self.unknown[request_id] = kind
        self._note(id=request_id, kind=kind, unknown=True, why=why)
        if self.is_graceful:
            self.dropped.add(request_id)
        self._judge_outage(request_id, why)

    def violate(self, text: str) -> None:
        self.violations.append(text)
        self._note(violation=text)

    def _judge_outage(self, request_id: str, why: str) -> None:
        if time.monotonic() > self.fault_ends + WINDOW_TAIL_SECONDS:
            self.violate(f"{request_id}: {why}, though no fault was under way")

    def _note(self, **line: object) -> None:
        if self._file is not None:
            self._file.write(json.dumps({"at": round(time.time(), 3), **line}) + "\n")


class UnansweredError(Exception):
    """The act's end is not known: no answer, or one that tells of an outage."""


@dataclass(slots=True)
class Tokens:
    access: str
    refresh: str


@dataclass(slots=True)
class Client:
    """One person's programs: what they made, and the sessions they hold."""

    number: int
    run: str
    urls: list[str]
    http: aiohttp.ClientSession
    book: Book
    dice: random.Random
    name: str = ""
    admin: Tokens | None = None
    weak: Tokens | None = None
    sessions: list[Tokens] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    roles: list[tuple[str, str]] = field(default_factory=list)
    turn: int = 0
    shunned: dict[str, float] = field(default_factory=dict)

    async def work(self, is_over: Callable[[], bool]) -> None:
        """Do one thing after another, as the mix has it."""
        kinds = [kind for kind, _ in MIX]
        weights = [weight for _, weight in MIX]
        while not is_over():
            kind = self.dice.choices(kinds, weights)[0]
            try:
                await _STEPS[kind](self)
            except UnansweredError:
                await asyncio.sleep(0.05)

    async def ask(
        self, kind: Kind, method: str, path: str, *, token: str | None = None, **options: Any
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Make a request that belongs in the book.

        Raises:
            UnansweredError: nobody knows what became of it.
        """
        self.turn += 1
        request_id = f"chaos-{self.run}-{self.number}-{self.turn}"
        url = self._choose()
        try:
            status, body, headers = await self.send(
                url, method, path, token=token, request_id=request_id, **options
            )
        except aiohttp.ClientConnectorError as exc:
            # As a load balancer does: whoever takes no connections is left alone for a moment.
            self.shunned[url] = time.monotonic() + SHUN_SECONDS
            self.book.lost(request_id, kind, type(exc).__name__)
            raise UnansweredError from None
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            self.book.lost(request_id, kind, type(exc).__name__)
            raise UnansweredError from None
        if headers.get("X-Request-ID") != request_id:
            self.book.violate(f"{request_id} came back as {headers.get('X-Request-ID')}")
        if status == 503 and "Retry-After" not in headers:
            self.book.violate(f"{request_id}: 503 without Retry-After: {body}")
        if status in {503, 507}:
            self.book.was_refused(request_id, kind, status)
            raise UnansweredError
        self.book.heard(request_id, kind, status, body)
        return status, body, headers

    def _choose(self) -> str:
        now = time.monotonic()
        good = [url for url in self.urls if self.shunned.get(url, 0) < now]
        return self.dice.choice(good or self.urls)

    async def send(
        self,
        url: str,
        method: str,
        path: str,
        *,
        token: str | None = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> tuple[int, Any, Mapping[str, str]]:
        sent = dict(headers or {})
        if request_id is not None:
            sent["X-Request-ID"] = request_id
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        async with self.http.request(method, url + path, headers=sent, **options) as answer:
            text = await answer.text()
            try:
                body = json.loads(text) if text else None
            except ValueError:
                # A 503 in plain text is an answer, but not one of ours.
                body = text[:200]
                self.book.violate(f"{request_id}: {answer.status} is no problem document: {body}")
            return answer.status, body, answer.headers

    def next_name(self, word: str) -> str:
        return f"{word}-{self.run}-{self.number}-{self.turn}"

    async def sign_in(self, kind: Kind, name: str, password: str) -> Tokens | None:
        body = {"username": name, "password": password}
        status, answer, _ = await self.ask(kind, "POST", "/api/v1/auth/login", json=body)
        if status != 200:
            return None
        return Tokens(answer["access_token"], answer["refresh_token"])


def _admin(client: Client) -> str:
    assert client.admin is not None
    return client.admin.access


async def _make_model(client: Client) -> None:
    body = {"name": client.next_name("m"), "framework": "other"}
    status, answer, _ = await client.ask(
        "model", "POST", "/api/v1/models", token=_admin(client), json=body
    )
    if status == 201:
        client.models = [*client.models[-MAX_OBJECTS:], answer["id"]]


async def _edit_model(client: Client) -> None:
    if not client.models:
        return
    path = f"/api/v1/models/{client.dice.choice(client.models)}"
    body = {"description": client.next_name("edit")}
    await client.ask("model-edit", "PUT", path, token=_admin(client), json=body)


async def _make_user(client: Client) -> None:
    name = client.next_name("u")
    body = {
        "username": name,
        "email": f"{name}@example.com",
        "password": PASSWORD,
        "roles": ["user"],
    }
    await client.ask("user", "POST", "/api/v1/admin/users", token=_admin(client), json=body)


async def _make_role(client: Client) -> None:
    body = {"name": client.next_name("r"), "permissions": ["model:read"]}
    status, answer, headers = await client.ask(
        "role", "POST", "/api/v1/admin/roles", token=_admin(client), json=body
    )
    if status == 201:
        client.roles = [*client.roles[-MAX_OBJECTS:], (answer["name"], headers["ETag"])]


async def _edit_role(client: Client) -> None:
    if not client.roles:
        return
    name, etag = client.roles.pop()
    body = {"description": client.next_name("edit")}
    await client.ask(
        "role-edit",
        "PUT",
        f"/api/v1/admin/roles/{name}",
        token=_admin(client),
        json=body,
        headers={"If-Match": etag},
    )


async def _sign_in(client: Client) -> None:
    tokens = await client.sign_in("login", client.name, PASSWORD)
    if tokens is not None:
        client.sessions = [*client.sessions[-MAX_OBJECTS:], tokens]


async def _sign_in_wrongly(client: Client) -> None:
    await client.sign_in("wrong-login", client.name, f"{CANARY}-{client.turn}")


async def _be_denied(client: Client) -> None:
    assert client.weak is not None
    body = {"name": client.next_name("no"), "framework": "other"}
    await client.ask("denied", "POST", "/api/v1/models", token=client.weak.access, json=body)


async def _refresh(client: Client) -> None:
    if not client.sessions:
        return
    # Whose answer is lost is not asked for again: the next token would look stolen.
    tokens = client.sessions.pop()
    body = {"refresh_token": tokens.refresh}
    status, answer, _ = await client.ask("refresh", "POST", "/api/v1/auth/refresh", json=body)
    if status == 200:
        client.sessions.insert(0, Tokens(answer["access_token"], answer["refresh_token"]))


async def _sign_out(client: Client) -> None:
    """End a session, and try its token at every process the moment that is acknowledged."""
    if not client.sessions:
        return
    tokens = client.sessions.pop()
    await client.ask("logout", "POST", "/api/v1/auth/logout", token=tokens.access)
    for url in client.urls:
        try:
            status, _, _ = await client.send(
                url, "GET", "/api/v1/users/profile", token=tokens.access
            )
        except (aiohttp.ClientError, TimeoutError, OSError):
            continue
        if status not in {401, 503}:
            client.book.violate(f"a token was answered {status} after its session had ended")


async def _read(client: Client) -> None:
    await client.ask("read", "GET", "/api/v1/audit/logs?limit=1", token=_admin(client))


Step: TypeAlias = Callable[[Client], Coroutine[Any, Any, None]]
_STEPS: Final[Mapping[Kind, Step]] = {
    "model": _make_model,
    "model-edit": _edit_model,
    "user": _make_user,
    "role": _make_role,
    "role-edit": _edit_role,
    "login": _sign_in,
    "wrong-login": _sign_in_wrongly,
    "denied": _be_denied,
    "refresh": _refresh,
    "logout": _sign_out,
    "read": _read,
}
MIX: Final[tuple[tuple[Kind, float], ...]] = (
    ("model", 22),
    ("model-edit", 8),
    ("user", 5),
    ("role", 3),
    ("role-edit", 2),
    ("login", 20),
    ("wrong-login", 10),
    ("denied", 10),
    ("refresh", 6),
    ("logout", 4),
    ("read", 10),
)


def open_http() -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=3),
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
    )
    # A read sent twice is two audited reads under one request id; there is no public switch.
    session._retry_connection = False
    return session


async def make_clients(
    cluster: Cluster, http: aiohttp.ClientSession, book: Book, *, count: int, run: str, seed: int
) -> list[Client]:
    """Make the people: each client is an administrator, and has a colleague without rights."""
    made = []
    for number in range(count):
        dice = random.Random(f"{seed}-{run}-{number}")  # noqa: S311  a schedule to be repeated
        client = Client(number, run, cluster.urls, http, book, dice)
        made.append(client)
    root = await made[0].sign_in("login", "root", cluster.admin_password)
    assert root is not None
    for client in made:
        for name, role in (
            (f"boss-{run}-{client.number}", "admin"),
            (f"weak-{run}-{client.number}", "user"),
        ):
            body = {
                "username": name,
                "email": f"{name}@example.com",
                "password": PASSWORD,
                "roles": [role],
            }
            await client.ask("user", "POST", "/api/v1/admin/users", token=root.access, json=body)
        client.name = f"boss-{run}-{client.number}"
        client.admin = await client.sign_in("login", client.name, PASSWORD)
        client.weak = await client.sign_in("login", f"weak-{run}-{client.number}", PASSWORD)
    return made


async def keep_signed_in(clients: list[Client], is_over: Callable[[], bool]) -> None:
    """Renew the tokens that last ten minutes, long before they end."""
    while not is_over():
        for _ in range(240):
            await asyncio.sleep(1)
            if is_over():
                return
        for client in clients:
            for attribute, name in (
                ("admin", client.name),
                ("weak", client.name.replace("boss", "weak")),
            ):
                try:
                    setattr(client, attribute, await client.sign_in("login", name, PASSWORD))
                except UnansweredError:
                    continue
