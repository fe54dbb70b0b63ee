"""Spans of what a request or a task calls: PostgreSQL, Redis and HTTP.

What is recorded is told here word by word, so that no value gets out: neither arguments nor
literals, no path, no query, no header, no message of an error.
"""

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import lru_cache, wraps
from typing import Any, Final

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from yarl import URL

from maas.shared.infrastructure.outgoing import Method, OutgoingClient, OutgoingResponse
from maas.shared.infrastructure.redis import RedisGate

Wrapped = Callable[..., Awaitable[Any]]

LINGER_NS: Final = 1_000_000_000
"""What begins so long after its request ended is no part of it any more.

Writers that many requests share run in the context of the one that started them, for ever.
"""

MAX_QUERY_CHARS: Final = 2000

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_LITERALS: Final = re.compile(
    r"""--[^\n]* | /\*.*?\*/               # where a quote begins nothing
      | (?P<name>"[^"]*")
      | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$     # $$text$$, but not $1
      | (?<![\w$])[eE]'(?:\\.|''|[^'\\])*'?
      | '(?:[^']|'')*'?
      | (?<![\w$.])\d+(?:\.\d+)?""",
    re.VERBOSE | re.DOTALL,
)
_QUERIES: Final = ("execute", "executemany", "fetch", "fetchrow", "fetchval", "fetchmany")
_PREPARED: Final = ("executemany", "fetch", "fetchrow", "fetchval", "fetchmany")


def trace_calls(tracer: Tracer, undo: ExitStack, *, propagate_to: frozenset[str]) -> None:
    """Wrap what calls others, until `undo` is closed."""

    def wrap(owner: type, names: tuple[str, ...], around: Callable[[Any], Any]) -> None:
        for name in names:
            original = getattr(owner, name)
            setattr(owner, name, around(original))
            undo.callback(setattr, owner, name, original)

    wrap(asyncpg.Connection, _QUERIES, _spans(tracer, lambda _, query, *__: _sql(query)))
    wrap(PreparedStatement, _PREPARED, _spans(tracer, lambda known, *_: _sql(known.get_query())))
    wrap(RedisGate, ("evaluate",), _spans(tracer, lambda *_: _redis("EVALSHA")))
    wrap(RedisGate, ("send",), _spans(tracer, lambda _, commands: _redis(commands[0][0])))
    wrap(Redis, ("execute_command",), _spans(tracer, lambda _, name, *__: _redis(name)))
    wrap(Pipeline, ("execute",), _spans(tracer, lambda *_: _redis("PIPELINE")))
    wrap(OutgoingClient, ("open",), lambda inner: _outgoing(inner, tracer, propagate_to))


def find_parent() -> Span | None:
    """Tell what is being traced here, unless that has long ended."""
    span = trace.get_current_span()
    if not isinstance(span, ReadableSpan):
        return None
    ended = span.end_time
    return span if ended is None or time.time_ns() - ended < LINGER_NS else None


def mark_failed(span: Span, error: BaseException) -> None:
    """Say of what kind an error is, for its message may hold anything."""
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(StatusCode.ERROR)


def _spans(
    tracer: Tracer, describe: Callable[..., tuple[str, Mapping[str, str]]]
) -> Callable[[Wrapped], Wrapped]:
    def around(inner: Wrapped) -> Wrapped:
        @wraps(inner)
        async def traced(*args: Any, **options: Any) -> Any:
            if find_parent() is None:
                return await inner(*args, **options)
            name, attributes = describe(*args)
            span = tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
            try:
                return await inner(*args, **options)
            except BaseException as exc:
                mark_failed(span, exc)
                raise
            finally:
                span.end()

        return traced

    return around


@lru_cache(maxsize=2048)
def _sql(query: str) -> tuple[str, Mapping[str, str]]:
    name = query.split(None, 1)[0].rstrip(";").upper() if query.strip() else "SQL"
    text = without_literals(query)[:MAX_QUERY_CHARS]
    return name, {
        "db.system.name": "postgresql",
        "db.operation.name": name,
        "db.query.text": text,
    }


def without_literals(query: str) -> str:
    """Put a question mark for each value that stands in a statement itself."""
    return _LITERALS.sub(lambda found: found["name"] or "?", query)


@lru_cache(maxsize=256)
def _redis(command: str | bytes) -> tuple[str, Mapping[str, str]]:
    name = command.decode() if isinstance(command, bytes) else command
    return name, {"db.system.name": "redis", "db.operation.name": name}


def _outgoing(
    inner: Callable[..., Any], tracer: Tracer, propagate_to: frozenset[str]
) -> Callable[..., Any]:
    @asynccontextmanager
    @wraps(inner)
    async def traced(
        self: OutgoingClient,
        method: Method,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> AsyncIterator[OutgoingResponse]:
        if find_parent() is None:
            async with inner(self, method, url, headers=headers, **options) as response:
                yield response
            return
        host, port = _target(url)
        span = tracer.start_span(method, kind=SpanKind.CLIENT)
        span.set_attributes(
            {"http.request.method": method, "server.address": host, "server.port": port}
        )
        if f"{host}:{port}" in propagate_to:
            sent = dict(headers or {})
            _PROPAGATOR.inject(sent, trace.set_span_in_context(span))
            headers = sent
        try:
            async with inner(self, method, url, headers=headers, **options) as response:
                span.set_attribute("http.response.status_code", response.status)
                span.add_event("answer_begun")
                yield response
        except Exception as exc:
            mark_failed(span, exc)
            raise
        finally:
            span.end()

    return traced


def read_targets(propagate_to: Iterable[str]) -> frozenset[str]:
    """Spell `host:port` as it is compared with URLs, whatever its case and its brackets."""
    found: set[str] = set()
    for target in propagate_to:
        host, _, port = target.rpartition(":")
        is_bare = ":" in host and not host.startswith("[")
        known, _ = _target(f"http://[{host}]" if is_bare else f"http://{host}")
        found.add(f"{known}:{port}")
    return frozenset(found)


def _target(url: str) -> tuple[str, int]:
    """Tell where a URL leads; one that cannot be read is refused when it is called."""
    try:
        parsed = URL(url)
    except ValueError:
        return "", 0
    return parsed.host or "", parsed.port or 0
