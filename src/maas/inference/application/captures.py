"""Prompts and answers, kept where the callers' own tenant has them kept for its deployment.

What is offered waits in memory, bounded, until it is written; no call waits for it or fails by it.
What finds no room, or is too large, is dropped: counted, and said.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, NewType, Protocol, TypeAlias
from uuid import UUID

import structlog

from maas.audit.public import AuditedResource, current_scope
from maas.inference.domain.route import Route
from maas.inference.public import CallKind, DeploymentId
from maas.shared.domain.errors import NotFoundError, UnavailableError
from maas.shared.domain.ids import AccountId, TenantId, new_id
from maas.shared.domain.page import Page, PageRequest
from maas.shared.domain.principal import Principal

CAPTURE: Final = AuditedResource("capture", frozenset())

CaptureId = NewType("CaptureId", UUID)

MAX_CAPTURE_BYTES: Final = 4 * 1024 * 1024
"""Of request and answer together."""

MAX_WAITING_BYTES: Final = 32 * 1024 * 1024
BATCH: Final = 50
PAUSE_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 3.0

DropReason: TypeAlias = Literal["too_large", "no_room", "not_written"]
DropCounter: TypeAlias = Callable[[DropReason, int], None]

log = structlog.get_logger(__name__)


class CaptureNotFoundError(NotFoundError):
    code = "capture-not-found"
    title = "No prompt and answer are kept of this call"

    def __init__(self) -> None:
        super().__init__(
            "The call's deployment keeps none, or not from your tenant's calls; it was not "
            "written yet, was dropped, or its time is over."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What was asked and answered, to the byte. Not `is_whole` if the answer was cut short.

    No `answer` stands for one that was too large to be brought along.
    """

    id: CaptureId = field(default_factory=lambda: CaptureId(new_id()))
    tenant_id: TenantId
    account_id: AccountId
    request_id: str
    deployment_id: DeploymentId
    kind: CallKind
    is_stream: bool
    is_whole: bool
    captured_at: datetime
    keep_until: datetime
    request: bytes
    answer: bytes | None

    @property
    def size_bytes(self) -> int:
        return len(self.request) + len(self.answer or b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureDetails:
    """A kept call, opened."""

    id: CaptureId
    request_id: str
    deployment_id: DeploymentId
    account_id: AccountId
    kind: CallKind
    is_stream: bool
    is_whole: bool
    captured_at: datetime
    keep_until: datetime
    request: str
    answer: str


class Captures(Protocol):
    """Where calls leave what is to be kept of them."""

    def offer(self, capture: Capture) -> None:
        """Take it, or drop it; never raises, never waits."""
        ...


class CaptureQueries(Protocol):
    async def list_captures(
        self, caller: Principal, request_id: str, page: PageRequest
    ) -> Page[CaptureDetails]:
        """List what is kept of calls under this id, newest first: a caller may use one twice.

        Raises:
            CaptureNotFoundError: nothing is.
            SecretUnreadableError: it does not open any more.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureService:
    queries: CaptureQueries

    async def read(
        self, caller: Principal, request_id: str, page: PageRequest
    ) -> Page[CaptureDetails]:
        """Read what is kept; the trail tells whose call somebody looked at.

        Raises:
            CaptureNotFoundError: nothing is.
            SecretUnreadableError: it does not open any more.
        """
        found = await self.queries.list_captures(caller, request_id, page)
        # Only now: an id that no call had may be anything, a secret in the wrong place too.
        current_scope().resource(CAPTURE, request_id)
        return found


class CaptureStore(Protocol):
    async def keep(self, captures: Sequence[Capture]) -> None:
        """Write captures of one tenant, but for those of people who were erased.

        Raises:
            UnavailableError: they could not be written now; none is.
        """
        ...


def keep_for(route: Route, tenant_id: TenantId) -> timedelta | None:
    """Tell for how long a call of this tenant is kept; `None` if it is not.

    Only the deployment's own tenant has had its prompts kept by its own will.
    """
    return route.keeps_captures if route.captures and route.tenant_id == tenant_id else None


class AnswerTape:
    """Takes along what of an answer goes to the client, so far as a capture has room for it."""

    __slots__ = ("_chunks", "_room")

    def __init__(self, request_bytes: int) -> None:
        self._room = MAX_CAPTURE_BYTES - request_bytes
        self._chunks: list[bytes] = []

    def add(self, chunk: bytes) -> None:
        """Take a piece; one byte too many, and all is let go."""
        if self._room < 0:
            return
        self._room -= len(chunk)
        if self._room < 0:
            self._chunks.clear()
        else:
            self._chunks.append(chunk)

    @property
    def answer(self) -> bytes | None:
        """What came; `None` if it was more than is ever kept."""
        return None if self._room < 0 else b"".join(self._chunks)


class CaptureQueue:
    """The `Captures` port: written by a task of its own, a few of one tenant at a time."""

    def __init__(self, store: CaptureStore) -> None:
        self.on_dropped: DropCounter = _count_nowhere
        self._store = store
        self._waiting: dict[TenantId, list[Capture]] = {}
        self._waiting_bytes = 0
        self._is_filled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._dropped: Counter[DropReason] = Counter()

    async def close(self) -> None:
        """Write what waits, for three seconds at most."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._waiting:
                    await self._write_next()
        for captures in self._waiting.values():
            self._drop("not_written", len(captures))
        self._tell()

    def offer(self, capture: Capture) -> None:
        if capture.answer is None or capture.size_bytes > MAX_CAPTURE_BYTES:
            self._drop("too_large")
        elif self._waiting_bytes + capture.size_bytes > MAX_WAITING_BYTES:
            self._drop("no_room")
        else:
            self._waiting.setdefault(capture.tenant_id, []).append(capture)
            self._waiting_bytes += capture.size_bytes
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write_on())
        self._is_filled.set()

    def _drop(self, reason: DropReason, count: int = 1) -> None:
        self._dropped[reason] += count
        self.on_dropped(reason, count)

    async def _write_on(self) -> None:
        while True:
            await self._is_filled.wait()
            self._is_filled.clear()
            while self._waiting:
                await self._write_next()
            self._tell()

    async def _write_next(self) -> None:
        """Write some of the tenant that waits longest; what cannot be written waits on."""
        tenant_id = next(iter(self._waiting))
        captures = self._waiting.pop(tenant_id)
        batch, left = captures[:BATCH], captures
        try:
            await self._store.keep(batch)
            left = captures[BATCH:]
        except UnavailableError:
            # Calls that come meanwhile find less room, and none once the bound is reached.
            self._tell()
            await asyncio.sleep(PAUSE_SECONDS)
        except Exception:
            # What the database will never take must not hold up all that comes after it.
            log.exception("captures_refused", count=len(batch))
            self._drop("not_written", len(batch))
            left = captures[BATCH:]
        finally:
            self._waiting_bytes -= _size(captures) - _size(left)
            if left:
                self._waiting[tenant_id] = left + self._waiting.get(tenant_id, [])

    def _tell(self) -> None:
        """Say at once how many were dropped: never a line a call."""
        if self._dropped:
            log.warning("captures_dropped", reasons=dict(self._dropped))
            self._dropped.clear()


def _count_nowhere(_reason: DropReason, _count: int) -> None:
    """Stand in for the metrics."""


def _size(captures: Sequence[Capture]) -> int:
    return sum(capture.size_bytes for capture in captures)
