"""Who walks the journey, and how they ask: the addresses of the API in turn."""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import openai

REQUEST_SECONDS: Final = 180.0
VISIBLE_SECONDS: Final = 30.0
"""The promise is two seconds on a machine of one's own; tests share theirs."""

LOOK_SECONDS: Final = 0.1
LATER: Final = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
TRIES: Final = 5
PAUSE_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What somebody did, as the trail should have it."""

    action: str
    request_id: str
    outcome: str


@dataclass(slots=True, kw_only=True)
class Person:
    """Somebody with a name and a password; each request goes to the next address."""

    name: str
    password: str
    tenant: str
    urls: Sequence[str]
    token: str = ""
    acts: list[Noted] = field(default_factory=list)
    _turns: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self._turns = itertools.cycle(self.urls)

    def sign_in(self) -> None:
        body = {"username": self.name, "password": self.password, "tenant": self.tenant}
        answer = self.does("auth.login", "POST", "/auth/login", json=body)
        self.token = answer["access_token"]

    def change_password(self, password: str) -> None:
        body = {"current_password": self.password, "new_password": password}
        self.does("password.changed", "POST", "/users/password", json=body)
        self.password = password

    def asks(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Ask the next address, again if it says later; `request` is as httpx takes it."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= request.pop("headers", {})
        for tries_left in reversed(range(TRIES)):
            answer = httpx.request(
                method,
                f"{next(self._turns)}/api/v1{path}",
                headers=headers,
                timeout=REQUEST_SECONDS,
                trust_env=False,
                **request,
            )
            if answer.status_code not in LATER or not tries_left:
                return answer
            time.sleep(float(answer.headers.get("Retry-After", PAUSE_SECONDS)))
        raise AssertionError

    def does(self, action: str, method: str, path: str, **request: Any) -> Any:
        """Do it with success, note it, and give what was answered."""
        answer = self.asks(method, path, **request)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        self.note(action, answer.headers["X-Request-ID"])
        return answer.json() if answer.content else None

    def sees(self, path: str, **parameters: str) -> Any:
        answer = self.asks("GET", path, params=parameters)
        assert answer.is_success, f"GET {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def note(self, action: str, request_id: str, outcome: str = "success") -> None:
        self.acts.append(Noted(action=action, request_id=request_id, outcome=outcome))

    def waits_for_event(self, act: Noted) -> dict[str, Any]:
        """Find the one event of an act in the trail, which has it a moment later."""
        return self.waits_for_events(1, request_id=act.request_id, action=act.action)[0]

    def waits_for_events(self, count: int, **wanted: str) -> list[dict[str, Any]]:
        deadline = time.monotonic() + VISIBLE_SECONDS
        while True:
            found: list[dict[str, Any]] = self.sees("/audit/logs", **wanted)["items"]
            if len(found) >= count or time.monotonic() > deadline:
                assert len(found) == count, f"{len(found)} events, not {count}: {wanted}"
                return found
            time.sleep(LOOK_SECONDS)


class Application:
    """OpenAI's own clients with one key, one for each address; they try again as they do."""

    def __init__(self, urls: Sequence[str], key: str) -> None:
        self._clients = [
            openai.OpenAI(
                base_url=f"{url}/v1", api_key=key, max_retries=TRIES, timeout=REQUEST_SECONDS
            )
            for url in urls
        ]
        self._turns = itertools.cycle(self._clients)

    @property
    def client(self) -> openai.OpenAI:
        """Give the one whose turn it is."""
        return next(self._turns)

    def close(self) -> None:
        for client in self._clients:
            client.close()
