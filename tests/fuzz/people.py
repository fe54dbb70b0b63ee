"""Who the fuzzer is: each role anew whenever what it did cost it its credential or its rights."""

import itertools
import secrets
import threading
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
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


class Caller:
    """One role's credential, as requests need it."""

    def __init__(self, role: str, keeper: Keeper) -> None:
        self._role = role
        self._keeper = keeper
        self._headers: dict[str, str] = {}
        self._left = 0
        self._lock = threading.Lock()
        self.people = 0

    @property
    def mark(self) -> tuple[str, str]:
        """A header that stands for the credential until a request is sent: some die before."""
        name = "X-API-Key" if self._role == API_KEY else "Authorization"
        return name, "Bearer of-this-role"

    def sign(self, headers: MutableMapping[str, str]) -> None:
        """Put the credential where its mark is."""
        name, mark = self.mark
        if headers.get(name) != mark:
            return
        with self._lock:
            if self._left == 0:
                self._headers = self._keeper.make(self._role)
                self._left = TURNS
                self.people += 1
            self._left -= 1
            headers.update(self._headers)

    def refused(self, sent: Mapping[str, str]) -> None:
        """Note that a credential is dead; not if it is one from before."""
        with self._lock:
            if any(sent.get(name) == value for name, value in self._headers.items()):
                self._left = 0
