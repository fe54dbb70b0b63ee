"""The API as commands call it: one key for one address, and refusals as errors.

Nothing the server says is taken on trust: it is sent nowhere else by a redirect, its answers are
bounded, and what it calls itself is checked before it is used.
"""

import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from maas.client.credentials import Access, is_loopback
from maas.client.errors import ClientError, RefusedError, StrangeAnswerError, TransientError
from maas.client.patience import LONGEST_WISH_SECONDS, Patience, say_nothing

M = TypeVar("M", bound=BaseModel)

API: Final = "/api/v1"
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
MAX_LIST_BYTES: Final = 32 * 1024 * 1024
"""Of all pages of a list together; what is kept of them takes several times as much."""

MAX_EMPTY_PAGES: Final = 200
MAX_SHOWN_CHARS: Final = 600
CONNECT_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 60.0
KEEPALIVE_SECONDS: Final = 2.0
"""Shorter than the server's: what is sent on a connection it has just closed is lost."""

READ_BYTES: Final = 256 * 1024
PAGE_ITEMS: Final = 200

FIRST_ERROR: Final = 400
UNAUTHORIZED: Final = 401
KEY_REFUSED: Final = (
    "The key is not accepted: it was revoked, has expired, or is another server's. Sign in with "
    "`maas login`, or give a good one."
)

_BUSY: Final = frozenset({408, 423, 425, 502, 503, 504})
_WHEN_TOLD: Final = frozenset({409, 429})
"""Of the moment where they name a time: so is the first of two same requests, still at work."""

_LASTING: Final = frozenset({"blob-corrupt"})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Api:
    """One API, called with one key. Use it as a context manager."""

    def __init__(
        self,
        access: Access,
        *,
        notice: Callable[[str], None] = say_nothing,
        patience: Callable[[], Patience] | None = None,
    ) -> None:
        self.access = access
        self._notice = notice
        self._patience = patience or Patience
        self._is_reached = False
        self._session: aiohttp.ClientSession | None = None
        proxies = {} if is_loopback(access.url) else getproxies()
        is_direct = not access.url.host or proxy_bypass(access.url.host)
        self._proxy = None if is_direct else proxies.get(access.url.scheme)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            headers={
                **({"Authorization": f"Bearer {self.access.key}"} if self.access.key else {}),
                "User-Agent": f"maas-cli/{version('maas-platform')}",
                # A compressed answer could be a bomb, and weights do not compress.
                "Accept-Encoding": "identity",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BYTES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def patience(self, notice: Callable[[str], None] | None = None) -> Patience:
        """Begin to count the failures of one piece of work."""
        fresh = self._patience()
        fresh.notice = notice or self._notice
        return fresh

    def url(self, path: str) -> URL:
        """Name a place of the API by its path, which is spelled as in a URL already."""
        return URL(f"{self.access.url}{path}", encoded=True)

    def own_url(self, location: str) -> URL:
        """Read where the server says something is.

        Raises:
            StrangeAnswerError: that is another server, which must not see the key.
        """
        if location.startswith(f"{API}/"):
            # A proxy may have put a path of its own before ours.
            return self.url(location)
        try:
            found = self.access.url.join(URL(location, encoded=True))
        except ValueError:
            found = URL()
        if found.host is None or found.origin() != self.access.url.origin():
            raise StrangeAnswerError("it names a place on another server")
        if found.user is not None or found.password is not None:
            raise StrangeAnswerError("it names a place for somebody else to sign in at")
        return found

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        data: Any = None,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request, once; the answer is open for the length of the block.

        Nobody may say nothing for longer than `silence_seconds` once it is sent.

        Raises:
            TransientError: the line broke, at any point of the block, or the server is busy.
            RefusedError: the server refused.
            ClientError: it is not to be talked to.
        """
        if self._session is None:
            message = "use the API as a context manager"
            raise RuntimeError(message)
        try:
            async with self._session.request(
                method,
                url,
                headers=headers,
                params=params,
                data=data,
                proxy=self._proxy,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_SECONDS, sock_read=silence_seconds
                ),
            ) as answer:
                self._is_reached = True
                await _check(answer, is_keyed=bool(self.access.key))
                yield answer
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as exc:
            message = f"{self.access.url} does not prove who it is: {exc}."
            raise ClientError(message) from None
        except aiohttp.ClientConnectorError as exc:
            if not self._is_reached:
                message = (
                    f"Nothing answers at {self.access.url} ({exc.strerror or exc}). Is the "
                    "platform up? Another address is given with --url or MAAS_API_URL."
                )
                raise ClientError(message) from None
            raise TransientError(_describe(exc)) from exc
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise TransientError(_describe(exc)) from exc

    async def get(self, path: str, model: type[M], *, keeps_all: bool = False) -> M:
        """Read one thing, however often the line breaks."""
        return await self._call("GET", path, model, keeps_all=keeps_all)

    async def send(
        self, method: str, path: str, model: type[M], body: Mapping[str, object] | None = None
    ) -> M:
        """Write one thing; a POST that is sent again makes nothing twice."""
        headers = {"Idempotency-Key": secrets.token_hex(16)} if method == "POST" else {}
        return await self._call(method, path, model, body=body, headers=headers)

    async def delete(self, path: str) -> None:
        await self._act("DELETE", path)

    async def post(self, path: str) -> None:
        """Have something done that takes no body and answers with none."""
        await self._act("POST", path)

    async def _act(self, method: str, path: str) -> None:
        async def attempt() -> None:
            async with self.request(method, self.url(path)):
                pass

        await self.patience().persist(attempt)

    async def first_page(self, path: str, model: type[M], **params: str) -> list[M]:
        """Read what the first page of a list has, which may be nothing where others follow."""
        page, _ = await self._get_page(path, {**params, "limit": str(PAGE_ITEMS)})
        return [validate(model, item) for item in page.items]

    async def list(
        self, path: str, model: type[M], *, limit: int, keeps_all: bool = False, **params: str
    ) -> list[M]:
        """Read a list, page by page, up to `limit` items; see `each`."""
        items = self.each(path, model, limit=limit, keeps_all=keeps_all, **params)
        return [item async for item in items]

    async def each(
        self, path: str, model: type[M], *, limit: int, keeps_all: bool = False, **params: str
    ) -> AsyncGenerator[M, None]:
        """Read a list as far as it is wanted, up to `limit` items.

        `keeps_all` keeps also what `model` has no name for.

        Raises:
            StrangeAnswerError: the pages do not end.
            ClientError: they are too long.
        """
        asked = {**params, "limit": str(min(limit, PAGE_ITEMS))}
        seen: set[str] = set()
        size = given = empty = 0
        while True:
            page, page_bytes = await self._get_page(path, asked)
            size += page_bytes
            if size > MAX_LIST_BYTES:
                message = (
                    f"The server's list is too long: more than {MAX_LIST_BYTES:,} bytes. Ask for "
                    "less of it, with --limit or a filter."
                )
                raise ClientError(message)
            for item in page.items[: limit - given]:
                yield validate(model, item, keeps_all=keeps_all)
            given += len(page.items)
            # A search that takes long gives what it has found so far, be it nothing.
            empty += not page.items
            if page.next_cursor is None or given >= limit:
                return
            if page.next_cursor in seen or empty > MAX_EMPTY_PAGES:
                raise StrangeAnswerError("its pages do not end")
            seen.add(page.next_cursor)
            asked["cursor"] = page.next_cursor

    async def _get_page(self, path: str, params: Mapping[str, str]) -> "tuple[_Page, int]":
        async def attempt() -> bytes:
            async with self.request("GET", self.url(path), params=params) as answer:
                return await _read_bounded(answer)

        text = await self.patience().persist(attempt)
        return validate(_Page, _read_text(text, path)), len(text)

    async def _call(
        self,
        method: str,
        path: str,
        model: type[M],
        *,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        keeps_all: bool = False,
    ) -> M:
        sent = dict(headers or {})
        data = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            data = json.dumps(body).encode()

        async def attempt() -> object:
            async with self.request(method, self.url(path), headers=sent, data=data) as answer:
                return await read_json(answer)

        answer = await self.patience().persist(attempt)
        return validate(model, answer, keeps_all=keeps_all)


class _Page(BaseModel):
    items: list[dict[str, Any]]
    next_cursor: str | None = None


class _Problem(BaseModel):
    title: str = ""
    detail: str = ""
    code: str = ""
    request_id: str = ""


def segment(text: str) -> str:
    """Spell one part of a path as a URL has it."""
    return quote(text, safe="")


async def read_json(answer: aiohttp.ClientResponse) -> object:
    """Read an answer that is JSON.

    Raises:
        StrangeAnswerError: it is not, or far too long.
    """
    return _read_text(await _read_bounded(answer), answer.url.path)


def _read_text(text: bytes, place: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise StrangeAnswerError(f"{place} gave no JSON") from None


def validate(model: type[M], value: object, *, keeps_all: bool = False) -> M:
    """Read what an answer says; what the model has no name for is kept only on demand.

    Raises:
        StrangeAnswerError: it lacks something, or has it in another form.
    """
    try:
        return model.model_validate(value, extra="allow" if keeps_all else None)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "all of it"
        raise StrangeAnswerError(f"{where}: {first['msg']}") from None


async def _read_bounded(answer: aiohttp.ClientResponse) -> bytes:
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise StrangeAnswerError("it is compressed, which nobody asked for")
    read = bytearray()
    async for chunk in answer.content.iter_any():
        read += chunk
        if len(read) > MAX_ANSWER_BYTES:
            raise StrangeAnswerError("it is far too long")
    return bytes(read)


async def _check(answer: aiohttp.ClientResponse, *, is_keyed: bool) -> None:
    """Turn what is not a success into an error."""
    status = answer.status
    if status in _REDIRECTS:
        elsewhere = answer.headers.get("Location", "an unnamed place")[:MAX_SHOWN_CHARS]
        message = (
            f"The server sends us on to {elsewhere}. The key goes to no other address by itself: "
            "give the right one with --url."
        )
        raise ClientError(message)
    if status < FIRST_ERROR:
        return
    problem, retry_after = await _read_problem(answer), _retry_after(answer)
    if _is_passing(status, problem.code, retry_after):
        reason = problem.title or f"the server answers {status}"
        raise TransientError(reason[:MAX_SHOWN_CHARS], retry_after=retry_after)
    text = KEY_REFUSED if status == UNAUTHORIZED and is_keyed else _spell(status, problem)
    raise RefusedError(status=status, code=problem.code, text=text)


def _is_passing(status: int, code: str, retry_after: float | None) -> bool:
    """Tell whether a refusal is of the moment; a spent quota is not, nor what is damaged."""
    if status in _WHEN_TOLD:
        return retry_after is not None and retry_after <= LONGEST_WISH_SECONDS
    return status in _BUSY and code not in _LASTING


async def _read_problem(answer: aiohttp.ClientResponse) -> _Problem:
    if answer.content_type != "application/problem+json":
        return _Problem()
    try:
        return _Problem.model_validate(json.loads(await _read_bounded(answer)))
    except (ValueError, RecursionError, ClientError):
        return _Problem()


def _spell(status: int, problem: _Problem) -> str:
    said = problem.detail or problem.title
    if not said:
        return f"The server answers {status}, without a reason."
    named = f"{problem.title}: {problem.detail}" if problem.title and problem.detail else said
    code = f" [{problem.code}]" if problem.code else ""
    return f"{named[:MAX_SHOWN_CHARS]}{code[:MAX_SHOWN_CHARS]}"


def _retry_after(answer: aiohttp.ClientResponse) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None  # noqa: PLR2004  no year has as many seconds


def _describe(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "the server said nothing for too long"
    if isinstance(exc, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
        return "the connection broke"
    return f"the connection broke ({str(exc) or type(exc).__name__})"[:MAX_SHOWN_CHARS]
