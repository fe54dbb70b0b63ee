"""URLs that every reader would decode the same way: the rest is refused at the edge."""

import re
from dataclasses import replace
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from maas.shared.interface.problems import FieldError, Problem

MAX_URL_BYTES = 8192

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")

_WRONG = "Not UTF-8, a NUL, or a line feed in the path"
INVALID_URL = Problem(
    status=422,
    code="invalid-url",
    title="The URL cannot be read",
    detail="Percent-encode path and query as UTF-8, without NULs, the path without line feeds.",
)
_TOO_LONG = Problem(
    status=414,
    code="uri-too-long",
    title="The URL is too long",
    detail="Path and query may have 8192 bytes.",
)


def url_problem(scope: Scope) -> Problem | None:
    """Tell what is wrong with a URL: its length, a NUL, or bytes that are not UTF-8.

    The server decodes paths leniently, so the raw bytes are what counts. In a path a line feed is
    wrong too: a route is a pattern, whose dot does not match it.
    """
    path: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    query: bytes = scope["query_string"]
    if len(path) + len(query) > MAX_URL_BYTES:
        return _TOO_LONG
    if not _is_plain(path) and not (_decodes(path) and b"%0a" not in path.lower()):
        return _invalid("path")
    if not _is_plain(query) and not _decodes(query.replace(b"+", b" ")):
        return _invalid("query")
    return None


def _is_plain(part: bytes) -> bool:
    return b"%" not in part and part.isascii() and b"\0" not in part


def _decodes(part: bytes) -> bool:
    if not part.isascii() or _BROKEN_ESCAPE.search(part) is not None:
        return False
    try:
        return "\0" not in unquote_to_bytes(part).decode("utf-8")
    except UnicodeDecodeError:
        return False


def _invalid(part: str) -> Problem:
    error = FieldError(loc=(part,), type=INVALID_URL.code, message=_WRONG)
    return replace(INVALID_URL, errors=(error,))
