"""Who the fuzzer is: each role anew whenever what it did cost it its credential or its rights."""

import itertools
import secrets
import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import httpx

LOGIN, USERS = "/api/v1/auth/login", "/api/v1/admin/users"
KEYS: Final = "/api/v1/users/api-keys"
PASSWORD: Final = "correct horse battery staple"
ANONYMOUS: Final = "anonymous"
API_KEY: Final = "api-key"
SEEDED: Final = ("platform_admin", "admin", "developer", "user", "auditor")
ROLES: Final = (*SEEDED, API_KEY, ANONYMOUS)
KEY_SCOPES: Final = ("inference:call", "model:read")
MARKED, MARK = "Authorization", "Bearer of-this-role"
"""Stands for the credential until a request is sent: some die before."""
IN_A_ROW: Final = 12
"""So many requests, then the next role's, where roles take turns: about two scenarios."""
TURNS: Final = 500
"""So many requests, then somebody new: an administrator that fuzzes takes rights from itself."""

MakeAdmin = Callable[[], tuple[str, str]]
"""Makes an administrator of everything as an operator does; tells the name and the password."""


class Keeper:
    """Makes people; what the fuzzer does to the keeper itself is mended by a new one."""

    def __init__(self, url: str, first: tuple[str, str], make_admin: MakeAdmin) -> None:
        self._url = url
        self._first: tuple[str, str] | None = first
        self._make_admin = make_admin
        self._headers: dict[str, str] = {}
        self._numbers = itertools.count()
        self._prefix = ""

    def make(self, role: str) -> dict[str, str]:
        """Make somebody of a role, and tell the headers that say so."""
        with suppress(httpx.HTTPStatusError):
            if self._headers:
                return self._made(role)
        if self._first is not None:
            keeper, self._first = self._first, None
            with suppress(httpx.HTTPStatusError):
                return self._begin(keeper, role)
        return self._begin(self._make_admin(), role)

    def _begin(self, keeper: tuple[str, str], role: str) -> dict[str, str]:
        # Several processes have one keeper at first, and no name is given twice.
        self._prefix = f"{role}-{secrets.token_hex(3)}-"
        self._headers = self._sign_in(*keeper)
        return self._made(role)

    def _made(self, role: str) -> dict[str, str]:
        name = f"{self._prefix}{next(self._numbers)}"
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        seeded = "developer" if role == API_KEY else role
        self._post(USERS, {**body, "roles": [seeded]}, self._headers)
        headers = self._sign_in(name, PASSWORD)
        if role != API_KEY:
            return headers
        made = self._post(KEYS, {"name": "fuzz", "scopes": list(KEY_SCOPES)}, headers)
        return {"X-API-Key": str(made["key"])}

    def _sign_in(self, name: str, password: str) -> dict[str, str]:
        told = self._post(LOGIN, {"username": name, "password": password}, {})
        return {"Authorization": f"Bearer {told['access_token']}"}

    def _post(
        self, path: str, body: Mapping[str, object], headers: Mapping[str, str]
    ) -> dict[str, object]:
        answer = httpx.post(
            f"{self._url}{path}", json=body, headers=dict(headers), timeout=60, trust_env=False
        )
        told: dict[str, object] = answer.raise_for_status().json()
        return told


@dataclass(slots=True)
class _Person:
    headers: dict[str, str]
    left: int = TURNS


class Caller:
    """The credentials of one role, or of several that take turns."""

    def __init__(self, roles: Sequence[str], keeper: Keeper) -> None:
        self._roles = itertools.cycle(roles)
        self._keeper = keeper
        self._persons: dict[str, _Person] = {}
        self._asked = itertools.count()
        self._lock = threading.Lock()
        self.role = roles[0]
        self.people = 0

    def sign(self, headers: MutableMapping[str, str]) -> None:
        """Put the credential where its mark is."""
        if headers.get(MARKED) != MARK:
            return
        with self._lock:
            if next(self._asked) % IN_A_ROW == 0:
                self.role = next(self._roles)
            del headers[MARKED]
            if self.role != ANONYMOUS:
                headers.update(self._person().headers)

    def refused(self, sent: Mapping[str, str]) -> None:
        """Note that a credential is dead; not if it is one from before."""
        with self._lock:
            for role, person in list(self._persons.items()):
                if any(sent.get(name) == value for name, value in person.headers.items()):
                    del self._persons[role]

    def _person(self) -> _Person:
        person = self._persons.get(self.role)
        if person is None or person.left == 0:
            person = self._persons[self.role] = _Person(self._keeper.make(self.role))
            self.people += 1
        person.left -= 1
        return person
