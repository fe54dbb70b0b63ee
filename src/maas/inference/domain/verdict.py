"""What the status of an upstream's answer means for the call, and for the target."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, Literal, TypeAlias

Verdict: TypeAlias = Literal[
    "answered", "request-refused", "rate-limited", "refused", "timed-out", "failed"
]
"""`request-refused` is about the caller's own request, `refused` about ours to the supplier."""

MOST_RETRY_AFTER: Final = timedelta(hours=1)

_ABOUT_THE_REQUEST: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
_WORTH_ANOTHER_TRY: Final = frozenset({HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY})
_TIMEOUTS: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GATEWAY_TIMEOUT})


def judge(status: int, headers: Mapping[str, str]) -> Verdict:
    """Judge an answer by its head.

    A page of HTML is a proxy's or a sign-in's, whatever its status says.
    """
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        is_page = headers.get("Content-Type", "").lstrip().lower().startswith("text/html")
        return "failed" if is_page else "answered"
    if status in _ABOUT_THE_REQUEST:
        return "request-refused"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate-limited"
    if status in _TIMEOUTS:
        return "timed-out"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _WORTH_ANOTHER_TRY:
        return "failed"
    # Redirects too: an address that nobody checked is not gone to.
    return "refused"


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Read when a supplier wants to be asked again: seconds, a date, or `retry-after-ms`."""
    told = _told(headers, now)
    if told is None or told < timedelta(0):
        return None
    return min(told, MOST_RETRY_AFTER)


def _told(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    try:
        if "Retry-After-Ms" in headers:
            return timedelta(milliseconds=float(headers["Retry-After-Ms"]))
        value = headers.get("Retry-After", "")
        if not value[:1].isalpha():
            return timedelta(seconds=float(value))
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)) - now
    except (ValueError, OverflowError):
        return None
