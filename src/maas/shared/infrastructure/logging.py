"""Logs: one line an event, JSON or coloured, the call's ids on it, secrets taken out twice."""

import logging
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import IO, Any, Literal

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, Processor, WrappedLogger
from typing_extensions import override

from maas.shared.domain.call import find_call

REDACTED = "[redacted]"
MAX_DEPTH = 6

_SECRET_WORDS = frozenset(
    {
        "apikey", "auth", "authorization", "bearer", "cookie", "cookies", "credential",
        "credentials", "dsn", "jwt", "otp", "passphrase", "passwd", "password", "passwords", "pwd",
        "secret", "secrets", "token",
    }
)  # fmt: skip
_SECRET_KEYS = re.compile(
    r"(?:access|api|encryption|idempotency|private|secret|session|signing)[_-]?keys?"
)
_URL_WORDS = frozenset({"uri", "uris", "url", "urls"})
_USER_INFO = re.compile(r"(?<=://)[^\s/?#]*@")
_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")

_TOKENS = re.compile(
    rb"""eyJ[\w-]{4,}\.[\w-]{4,}(?:\.[\w-]*)*                      # JWT
       | \bmaas_[a-zA-Z0-9]+_[\w-]{8,} | \bmrt_[\w-]{8,}           # our keys and tokens
       | \$argon2[\w$=,+/.-]+                                       # password hashes
       | \b(?:sk|pk|rk)-[\w-]{16,} | \b(?:hf_|gh[opsu]_|glpat-)[\w-]{16,} | \bAKIA[A-Z0-9]{12,}
       | (?<=://)[^\s/:"\\]*:[^\s/"\\]+(?=@)                        # URL user and password
       | (?<=[Bb]earer[ ])[\w.~+/=-]{6,} | (?<=[Bb]asic[ ])[\w+/=-]{6,}
       | (?<=input_value=).{0,400}?(?=,[ ]input_type=)              # what pydantic did not like
       | (?P<header>(?<![\w-])(?i:(?:set-|proxy-)?(?:cookie|authorization)[ ]?:[ ]?
           (?:(?:bearer|basic|digest|token)[ ])?))[^\s"'\\][^"\\\r\n]*
       | (?<![\w-])(?i:[\w-]{0,32}(?:                               # query strings and calls
           password|passwd|pwd|passphrase|secret|token|(?:api|session|secret|private)[_-]?key))
         =(?:'[^'\\]{0,400}'|[^\s&"\\]+)
       | (?P<name>(?<![\w-])(?i:[\w-]{0,32}(?:
           password|passwd|pwd|passphrase|secret|token|(?:api|session|secret|private)[_-]?key
           |cookie|authorization))
           (?:[ ]?:[ ]?                                               # headers
             | (?P<quote>\\*["'])(?:[ ]?:[ ]?|,[ ]?b)(?P=quote)))     # JSON or reprs, quoted again
         (?(quote)(?:(?!(?<!\\)(?:(?P=quote)|")).)+
           | (?i:(?:bearer|basic)[ ])?[^\s"'\\,;&]+)
    """,
    re.VERBOSE,
)
_TOKEN_MARKS = (
    b"=", b"eyj", b"maas_", b"mrt_", b"$argon2", b"://", b"earer ", b"asic ", b"k-", b"hf_", b"gh",
    b"glpat", b"akia", b"pass", b"pwd", b"secret", b"token", b"key", b"cookie", b"authorization",
)  # fmt: skip
"""Some of these stand in every line that `_TOKENS` matches; a search for them costs a tenth."""

_REDACTED_BYTES = rb"\g<name>\g<header>" + REDACTED.encode()


_NUMBERS = frozenset({bool, float, int, type(None)})


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Tell by a field's name whether its value is a secret; `tokens` counts, `token` hides."""
    words = {word.lower() for word in _WORDS.findall(name)}
    return not words.isdisjoint(_SECRET_WORDS) or _SECRET_KEYS.search(name.lower()) is not None


@lru_cache(maxsize=4096)
def _may_hold_secrets(name: str) -> bool:
    return is_secret_name(name) or not _URL_WORDS.isdisjoint(_WORDS.findall(name.lower()))


def redact_fields(fields: Mapping[Any, Any], depth: int = 0) -> dict[Any, Any]:
    """Hide the values of fields with secret names, nested ones too; numbers are never secrets."""
    clean: dict[Any, Any] = {}
    for name, value in fields.items():
        kind = type(value)
        if kind in _NUMBERS:
            clean[name] = value
        elif type(name) is str and _may_hold_secrets(name):
            clean[name] = REDACTED if is_secret_name(name) else _without_user_info(value, depth)
        else:
            clean[name] = value if kind is str else _redact_inside(value, depth)
    return clean


def _without_user_info(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _USER_INFO.sub(f"{REDACTED}@", value)
    return _redact_inside(value, depth)


def _redact_inside(value: Any, depth: int) -> Any:
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Mapping):
        return REDACTED if depth >= MAX_DEPTH else redact_fields(value, depth + 1)
    if isinstance(value, list | tuple | set | frozenset):
        return (
            [_redact_inside(item, depth + 1) for item in value] if depth < MAX_DEPTH else REDACTED
        )
    return value


def redact_tokens(line: bytes) -> bytes:
    """Hide whatever looks like a credential, wherever it stands in a line."""
    lowered = line.lower()
    for mark in _TOKEN_MARKS:
        if mark in lowered:
            return _TOKENS.sub(_REDACTED_BYTES, line)
    return line


def add_call(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put the ids of the call being served on a line, unless they are there."""
    call = find_call()
    if call is not None and "request_id" not in event:
        event["request_id"] = call.request_id
        if call.tenant_id is not None:
            event["tenant_id"] = str(call.tenant_id)
        if call.principal is not None:
            event["account_id"] = str(call.principal.account_id)
    return event


def _hide_secret_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return redact_fields(event)


class JsonLine:
    """Renders an event as one line of JSON; whatever is in it, it does not raise."""

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
        try:
            return redact_tokens(to_json(event, inf_nan_mode="strings", fallback=_describe))
        except Exception:  # noqa: BLE001  a log line must not fail the work it tells of
            return to_json({"event": "log_line_unreadable", "was": _describe(event.get("event"))})


class ConsoleLine:
    """Renders an event for people."""

    def __init__(self, *, has_colours: bool) -> None:
        # Prettier tracebacks show local variables, and with them secrets.
        self._render = structlog.dev.ConsoleRenderer(
            colors=has_colours, exception_formatter=structlog.dev.plain_traceback
        )

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        try:
            line = self._render(logger, method, event)
            return redact_tokens(line.encode("utf-8", "backslashreplace"))
        except Exception:  # noqa: BLE001  a log line must not fail the work it tells of
            return b"log_line_unreadable"


def _describe(value: object) -> str:
    try:
        return str(value).encode("utf-8", "backslashreplace").decode()
    except Exception:  # noqa: BLE001  a broken __str__ of anything at all
        return f"<{type(value).__name__}>"


class LineWriter:
    """Writes lines to a stream; a full disk or a closed pipe loses the line, not the request."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def msg(self, line: bytes) -> None:
        try:
            self._stream.write(line + b"\n")
            self._stream.flush()
        except (OSError, ValueError):
            return

    log = debug = info = warning = warn = error = exception = critical = fatal = failure = msg


class _StandardHandler(logging.Handler):
    """Takes what libraries log through the standard library the same way."""

    def __init__(self, writer: LineWriter, processors: list[Processor]) -> None:
        super().__init__()
        self._writer = writer
        self._processors = processors

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            event: Any = {"event": record.getMessage(), "logger": record.name}
            if record.exc_info:
                event["exc_info"] = record.exc_info
            for process in self._processors:
                event = process(None, record.levelname.lower(), event)
            self._writer.msg(event)
        except Exception:  # noqa: BLE001  a broken format string of some library
            self._writer.msg(b'{"event":"log_line_unreadable"}')


def configure_logging(
    *,
    level: str,
    format: Literal["auto", "json", "console"] = "auto",  # noqa: A002  the setting's name
    stream: IO[bytes] | None = None,
) -> None:
    """Route structlog and the standard library to one stream, standard error by default."""
    is_terminal = stream is None and sys.stderr.isatty()
    is_console = format == "console" or (format == "auto" and is_terminal)
    writer = LineWriter(stream or sys.stderr.buffer)
    render = ConsoleLine(has_colours=is_terminal) if is_console else JsonLine()
    processors: list[Processor] = [
        add_call,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _hide_secret_fields,
        structlog.processors.format_exc_info,
        render,
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=LevelledLogger,
        logger_factory=lambda *_args: writer,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_StandardHandler(writer, processors)], level=level, force=True)
    set_log_level(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    # The edge writes the access line, with the route instead of the path.
    logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL)


class LevelledLogger(structlog.make_filtering_bound_logger("INFO")):  # type: ignore[misc]  # made by a function
    """A logger whose level can change after it was first used, at no cost for each line."""


def set_log_level(level: str) -> None:
    """Log from this level on, whoever logs."""
    LevelledLogger.__bases__ = (structlog.make_filtering_bound_logger(level),)
    logging.getLogger().setLevel(level)
    for name in ("sqlalchemy", "asyncio", "botocore", "urllib3", "aiohttp"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
