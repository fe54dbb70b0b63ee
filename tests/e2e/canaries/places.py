"""Where a secret can stand in a request: one canary a place and route, each value used once.

A canary is a secret that nobody else would make up: whoever finds one knows which place it was put
in, and which route it was sent to.
"""

import base64
import itertools
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from tests.e2e.routes.world import Case

MARK: Final = "zqcanary"
FOUND: Final = re.compile(rf"{MARK}([0-9a-f]{{6}})".encode())

NAMES: Final = {"path": "file name", "tag": "tag", "alias": "alias"}
"""What people call things, by the parameter of the path: it is kept as what it is."""

TOLD_BACK: Final = {"field name", "path", *NAMES.values()}
"""Places whose words are told back to their sender, and must be found nowhere else.

`errors` names the field that is not known, and `instance` is the path that was asked for.
"""

_ENCODINGS: Final = {"hex": re.compile(MARK.encode().hex().encode(), re.IGNORECASE)} | {
    f"base64, {skip}": re.compile(
        re.escape(base64.b64encode(b"\0" * skip + MARK.encode())[4 if skip else 0 : 11 - skip])
    )
    for skip in range(3)
}


@dataclass(slots=True)
class Canaries:
    """Makes canaries, and knows again what is found of them."""

    places: dict[str, tuple[str, str]] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def make(self, place: str, route: str) -> str:
        number = f"{next(self._numbers):06x}"
        self.places[number] = (place, route)
        return f"{MARK}{number}{secrets.token_hex(6)}"

    def jwt(self, place: str, route: str) -> str:
        head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode().rstrip("=")
        return f"{head}.{head}.{self.make(place, route)}"

    def key(self, place: str, route: str) -> str:
        return f"maas_prod_{self.make(place, route)}"

    def found_in(self, text: bytes) -> set[tuple[str, str]]:
        """Tell the places and routes of all canaries in a text, encoded ones too."""
        found = {
            self.places.get(number.decode(), ("unknown", "")) for number in FOUND.findall(text)
        }
        return found | {
            (f"something in {name}", "")
            for name, pattern in _ENCODINGS.items()
            if pattern.search(text)
        }

    @property
    def kinds(self) -> set[str]:
        return {place for place, _ in self.places.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """What one request has besides, or instead of, what the route's case has."""

    headers: Mapping[str, str] = field(default_factory=dict)
    has_credentials: bool = True
    query: str = ""
    content: bytes | None = None
    values: Mapping[str, str] | None = None


def shots(canaries: Canaries, key: str, case: Case) -> Iterator[Shot]:
    """Aim at every place of one route; what leaves it in peace comes first."""

    def new(place: str) -> str:
        return canaries.make(place, key)

    yield Shot(
        headers={
            "Cookie": f"session={new('cookie')}; access_token={new('cookie of a token')}",
            "Referer": f"https://app.example/reset?token={new('referer')}",
            "Origin": f"https://{new('origin')}.example",
            "Proxy-Authorization": f"Bearer {new('proxy authorization')}",
            "X-Auth-Token": new("unknown header"),
            "X-CSRF-Token": new("csrf header"),
            "X-Forwarded-For": new("forwarded for"),
            "Forwarded": f"for={new('forwarded')}",
            "User-Agent": f"agent/1 ({new('user agent')})",
            "Accept-Language": new("accept language"),
            "Traceparent": new("trace"),
        }
    )
    yield from _by_credential(canaries, key)
    yield from _by_url(canaries, key, case)
    for value in (
        canaries.jwt("request id like a JWT", key),
        canaries.key("request id like a key", key),
    ):
        yield Shot(headers={"X-Request-ID": value})
    yield Shot(
        headers={
            "If-Match": new("if-match"),
            "Idempotency-Key": new("idempotency key"),
            "X-Content-SHA256": new("digest header"),
            "Range": new("range"),
        }
    )
    yield from _by_body(canaries, key, case)


def _by_credential(canaries: Canaries, key: str) -> Iterator[Shot]:
    basic = f"user:{canaries.make('basic auth', key)}"
    for value in (
        f"Bearer {canaries.jwt('bearer JWT', key)}",
        f"Bearer {canaries.key('bearer API key', key)}",
        f"Bearer {canaries.make('bearer', key)}",
        f"bearer  {canaries.make('bearer, ill spelt', key)}",
        f"Basic {base64.b64encode(basic.encode()).decode()}",
        f"Digest response={canaries.make('digest auth', key)}",
        f"Token {canaries.make('unknown scheme', key)}",
        canaries.make("credential without a scheme", key),
    ):
        yield Shot(has_credentials=False, headers={"Authorization": value})
    for value in (canaries.key("X-API-Key", key), canaries.make("X-API-Key of no form", key)):
        yield Shot(has_credentials=False, headers={"X-API-Key": value})
    yield Shot(headers={"X-API-Key": canaries.key("second credential", key)})


def _by_url(canaries: Canaries, key: str, case: Case) -> Iterator[Shot]:
    names = ("token", "password", "api_key", "access_token", "client_secret", "code", "sig")
    query = "&".join(f"{name}={canaries.make(f'query: {name}', key)}" for name in names)
    yield Shot(query=f"?{query}")
    yield Shot(query=f"?{canaries.make('field name', key)}=1")
    yield Shot(query=f"?token={canaries.make('query that cannot be', key)}%00")
    yield Shot(query=f"?token={canaries.make('long query', key)}{'x' * 9000}")
    yield Shot(query=f"?cursor={canaries.make('cursor', key)}&limit={canaries.make('limit', key)}")
    for name in case.values:
        place = NAMES.get(name, "path")
        odd = quote(canaries.make(place, key))
        yield Shot(values={**case.values, name: odd})


def _by_body(canaries: Canaries, key: str, case: Case) -> Iterator[Shot]:
    def new(place: str) -> str:
        return canaries.make(place, key)

    def sent(body: object, media: str = "application/json") -> Shot:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Shot(headers={"Content-Type": media}, content=content)

    form, known = "application/x-www-form-urlencoded", case.json or {}
    names = ("password", "secret", "token", "api_key", "apiKey", "client_secret", "authorization")
    yield sent({**known, **{name: new(f"unknown field: {name}") for name in names}})
    yield sent({**known, new("field name"): 1})
    yield sent({**known, "nested": {"password": new("nested field")}})
    for name in known:
        yield sent({**known, name: {"password": new("object for a text")}})
        yield sent({**known, name: [new("list for a text")]})
        if "password" in name or "token" in name:
            yield sent({**known, name: new("wrong secret")})
            yield sent({**known, name: new("long secret") + "x" * 5000})
            yield sent({**known, name: new("secret that cannot be") + "\0"})
    yield sent(f'{{"password": "{new("JSON cut off")}'.encode())
    yield sent(f'{{"password": "{new("JSON twice")}", "password": 1}}'.encode())
    yield sent(f'{{"password": "{new("JSON with bad bytes")}'.encode() + b'\xff"}')
    yield sent(new("bare JSON text"))
    yield sent(f'{{"password": NaN, "token": "{new("JSON with NaN")}"}}'.encode())
    yield sent(f'{"[" * 40}"{new("deep JSON")}"{"]" * 40}'.encode())
    yield sent(f"password={new('wrong content type')}".encode(), "text/plain")
    yield sent(b"{}", f"application/json; token={new('content type')}")
    yield sent(f"username=ada&password={new('form')}".encode(), form)
    yield sent(f"username=ada&password={new('form of bad bytes')}%zz".encode(), form)
    yield sent(f"grant_type={new('form: grant type')}&client_secret=x".encode(), form)
    yield sent(new("field name").encode(), form)
    part = (
        '--b\r\nContent-Disposition: form-data; name="file"; '
        f'filename="{new("multipart file name")}"\r\n\r\n{new("multipart")}\r\n--b--\r\n'
    )
    yield sent(part.encode(), "multipart/form-data; boundary=b")
