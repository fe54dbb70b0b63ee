"""What databases, caches and sockets report, told as problems that a client can act on."""

import errno
from collections.abc import Mapping
from typing import NamedTuple

import asyncpg
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from maas.shared.interface.problems import Problem

RETRY_HEADERS: Mapping[str, str] = {"Retry-After": "1"}


class _Answer(NamedTuple):
    status: int
    code: str
    title: str
    detail: str


_BAD_TEXT = _Answer(
    422,
    "value-not-storable",
    "A value cannot be stored",
    "A value holds characters or numbers that the database does not take.",
)
_TAKEN = _Answer(
    409, "already-exists", "Already there", "Something with the same unique value exists."
)
_REFERENCED = _Answer(
    409,
    "still-referenced",
    "Something else depends on this",
    "What it refers to is missing, or something still refers to it.",
)
_RACED = _Answer(
    409,
    "concurrent-change",
    "Somebody changed the same thing at the same moment",
    "Nothing was changed. Read it again, then retry.",
)
_LOCKED = _Answer(
    503,
    "database-busy",
    "The database is busy",
    "Somebody else holds a lock on this for too long. Nothing was changed; retry.",
)
_KEY_RETIRED = _Answer(
    503,
    "sealing-key-retired",
    "The key that seals secrets was retired",
    "Nothing was kept; retry. If it stays so, an operator finds the reason with `maas doctor`.",
)
_SLOW = _Answer(
    503,
    "database-timeout",
    "The database took too long",
    "The query was cancelled. Nothing was changed; retry, with a narrower filter if there is one.",
)
_DOWN = _Answer(
    503,
    "database-unavailable",
    "The database is not available",
    "It does not answer or is restarting. Retry shortly.",
)
_EXHAUSTED = _Answer(
    503,
    "database-pool-exhausted",
    "Too many requests wait for the database",
    "No connection became free in time. Retry shortly.",
)
_DISK_FULL = _Answer(
    507, "storage-full", "Storage is full", "There is no room left to keep this; reading works."
)
_REDIS_DOWN = _Answer(
    503, "redis-unavailable", "Redis does not answer", "It is down or restarting. Retry shortly."
)
_NETWORK_DOWN = _Answer(
    503,
    "dependency-unavailable",
    "Something this needs is not available",
    "A service did not answer in time. Retry shortly.",
)
_STALE = _Answer(
    412,
    "precondition-failed",
    "Changed since you read it",
    "Somebody changed it at the same moment. Read it again, then retry.",
)

_BY_SQLSTATE: Mapping[str, _Answer] = {
    "22000": _BAD_TEXT,  # asyncpg's own, for what it cannot encode
    "22021": _BAD_TEXT,
    "22P05": _BAD_TEXT,
    "22P02": _BAD_TEXT,
    "22003": _BAD_TEXT,
    "22001": _BAD_TEXT,
    "23505": _TAKEN,
    "23503": _REFERENCED,
    "23P01": _TAKEN,
    "40001": _RACED,
    "40P01": _RACED,
    "55P03": _LOCKED,
    "57014": _SLOW,
    "25P03": _SLOW,
    "25P04": _SLOW,
    "25006": _DOWN,
    "53100": _DISK_FULL,
    "53200": _DOWN,
    "53300": _EXHAUSTED,
    "53400": _DOWN,
    "58030": _DOWN,
    "MS001": _KEY_RETIRED,  # our own, in the trigger of sealed columns
}
_BY_SQLSTATE_CLASS: Mapping[str, _Answer] = {"08": _DOWN, "57": _DOWN}

_BY_LIBRARY_ERROR: Mapping[type[Exception], _Answer] = {
    PoolTimeoutError: _EXHAUSTED,
    StaleDataError: _STALE,
}

_FULL_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})
_PROGRAMMING_ERRORS = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


OUTAGES = tuple(
    Problem(status=answer.status, code=answer.code, title=answer.title, detail=answer.detail)
    for answer in (_LOCKED, _SLOW, _DOWN, _EXHAUSTED, _REDIS_DOWN, _NETWORK_DOWN)
)
"""What every route may answer when something it needs does not."""

WRITE_FAILURES = tuple(
    Problem(status=answer.status, code=answer.code, title=answer.title, detail=answer.detail)
    for answer in (_RACED, _DISK_FULL, _KEY_RETIRED)
)
"""What every change may end in besides."""


def problem_of_outage(error: Exception) -> Problem | None:
    """Tell what a driver's error means for the caller; `None` if it is a bug of ours."""
    answer = _answer_to(error)
    if answer is None:
        return None
    return Problem(
        status=answer.status,
        code=answer.code,
        title=answer.title,
        detail=answer.detail,
        headers=RETRY_HEADERS if answer.status == _DOWN.status else {},
    )


def _answer_to(error: Exception) -> _Answer | None:
    match error:
        case DBAPIError():
            return _answer_to_wrapped(error)
        case SQLAlchemyError():
            return _BY_LIBRARY_ERROR.get(type(error))
        case RedisError():
            return _REDIS_DOWN
        case _:
            return _answer_to_driver(error)


def _answer_to_wrapped(error: DBAPIError) -> _Answer | None:
    driver_error: BaseException | None = error.orig
    while driver_error is not None:
        answer = _answer_to_driver(driver_error)
        if answer is not None:
            return answer
        driver_error = driver_error.__cause__
    return _DOWN if error.connection_invalidated else None


def _answer_to_driver(error: BaseException) -> _Answer | None:
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str):
        return _BY_SQLSTATE.get(sqlstate) or _BY_SQLSTATE_CLASS.get(sqlstate[:2])
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        # asyncpg refuses some values before they reach the server, without a SQLSTATE.
        return _BAD_TEXT if isinstance(error, ValueError) else _DOWN
    return _answer_to_os(error) if isinstance(error, OSError) else None


def _answer_to_os(error: OSError) -> _Answer | None:
    if error.errno in _FULL_DISK_ERRORS:
        return _DISK_FULL
    return None if isinstance(error, _PROGRAMMING_ERRORS) else _NETWORK_DOWN
