"""Group commit: what callers ask for while a transaction is under way goes into the next one.

A batch is one statement (`quota_apply`, migration 0018), hence one transaction and one wait for the
disk. Each tenant is in one batch at a time; two batches may be under way. A batch that the database
refuses is cut in parts until the one that is to blame is alone. One whose fate is unknown, since
the connection broke, is sent again: a hold's id makes that harmless.
"""

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import asyncpg
import structlog
from pydantic_core import PydanticSerializationError, to_json

from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import Database

log = structlog.get_logger(__name__)

APPLY: Final = "SELECT * FROM quota_apply($1::jsonb, clock_timestamp())"
ENSURE_PARTITION: Final = "SELECT usage_ensure_partition($1)"

TRANSACTIONS: Final = 2
"""Under way at once: of the pool of hot reads, most is left to those."""

MAX_BATCH: Final = 256
MAX_WAITING: Final = 2_000
"""Of one tenant; what gives back or books is taken beyond that too, for else it would be lost."""

ATTEMPT_SECONDS: Final = 1.5
FIRST_PAUSE_SECONDS: Final = 0.02
LONGEST_PAUSE_SECONDS: Final = 0.5
TENANT_PAUSE_SECONDS: Final = 0.5
CLOSE_SECONDS: Final = 5.0

_REFUSED: Final = ("21", "22", "23", "P0001")
"""Classes of SQLSTATE that speak of what was asked for; all others may pass."""

_OUTAGE: Final = ("25", "28", "3D", "53")
"""Those of a whole server, for which all wait: read-only, lets nobody in, lacks the means."""

_CONFLICT: Final = "40"
"""Between transactions, of which one was undone: it may go on at once."""

_UNKNOWN: Final = ("08", "57P")
"""Those after which the transaction may stand all the same: the connection, or the server, went."""


_LOST: Final = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises of a connection that went; the last where it went in mid-message."""


class TooManyWaitingError(Exception):
    """More of the tenant's asks wait than would be answered in time."""


class UnansweredError(Exception):
    """The database did not answer for as long as the ask was worth sending."""


@dataclass(eq=False, slots=True, kw_only=True)
class Ask:
    """One thing asked of `quota_apply`; `future` gets the row it answers, where it answers one.

    `give_up_at` is a time of the event loop, `made` when the hold was made. An abandoned one is not
    sent again. What `is_unknown` was sent, and may have been done or be done yet.
    """

    tenant_id: TenantId
    body: Mapping[str, object]
    give_up_at: float
    future: "asyncio.Future[asyncpg.Record | None]"
    made: datetime | None = None
    is_abandoned: bool = False
    is_unknown: bool = False

    def answer(self, row: asyncpg.Record | None) -> None:
        if not self.future.done():
            self.future.set_result(row)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            # Whoever asked may have left; then nobody reads it.
            self.future.exception()


@dataclass(slots=True)
class _Waiting:
    """Asks by tenant, in the order in which they came; tenants take turns."""

    by_tenant: dict[TenantId, deque[Ask]] = field(default_factory=dict)
    count: int = 0

    def add(self, ask: Ask) -> None:
        self.by_tenant.setdefault(ask.tenant_id, deque()).append(ask)
        self.count += 1

    def count_of(self, tenant_id: TenantId) -> int:
        return len(self.by_tenant.get(tenant_id, ()))

    def take(self, tenant_id: TenantId, most: int) -> list[Ask]:
        asks = self.by_tenant.pop(tenant_id)
        taken = [asks.popleft() for _ in range(min(most, len(asks)))]
        if asks:
            # Behind everybody else.
            self.by_tenant[tenant_id] = asks
        self.count -= len(taken)
        return taken


class CallBatches:
    """Runs asks in batches; `ask` and go on, the future tells."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting = _Waiting()
        self._busy: set[TenantId] = set()
        self._apart: set[TenantId] = set()
        self._stuck: set[TenantId] = set()
        self._resting: set[TenantId] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._made_months: set[str] = set()
        self._is_launching = False
        self._pause = 0.0

    def ask(
        self,
        tenant_id: TenantId,
        body: Mapping[str, object],
        *,
        worth_seconds: float,
        made: datetime | None = None,
        may_refuse: bool = False,
    ) -> Ask:
        """Have it done in the next batch; it is sent again for so long if need be.

        Raises:
            TooManyWaitingError: it may be refused, and the database is far behind.
        """
        if may_refuse and self._waiting.count_of(tenant_id) >= MAX_WAITING:
            raise TooManyWaitingError
        loop = asyncio.get_running_loop()
        ask = Ask(
            tenant_id=tenant_id,
            body=body,
            made=made,
            give_up_at=loop.time() + worth_seconds,
            future=loop.create_future(),
        )
        self._waiting.add(ask)
        self._launch_soon()
        return ask

    async def close(self) -> None:
        """Wait for what is under way and what waits, but not for a database that is gone."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CLOSE_SECONDS
        while (self._tasks or self._waiting.count) and loop.time() < deadline:
            if self._tasks:
                await asyncio.wait(set(self._tasks), timeout=deadline - loop.time())
            else:
                # Whoever waits is given a rest, or late and not looked at yet.
                self._launch_soon()
                await asyncio.sleep(FIRST_PAUSE_SECONDS)
        for task in self._tasks:
            task.cancel()
        if self._waiting.count:
            log.warning("quota_calls_not_sent", calls=self._waiting.count)

    def _launch_soon(self) -> None:
        """Let everybody who asks in this turn of the loop be in the same batch."""
        if not self._is_launching:
            self._is_launching = True
            asyncio.get_running_loop().call_soon(self._launch)

    def _launch(self) -> None:
        self._is_launching = False
        while len(self._tasks) < TRANSACTIONS:
            waiting = self._waiting.count
            batch = self._take()
            if not batch:
                if self._waiting.count == waiting:
                    return
                # All that was taken was late; what is behind it need not be.
                continue
            task = asyncio.create_task(self._run(batch), name="quota-batch")
            self._tasks.add(task)
            task.add_done_callback(self._end)

    def _end(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("quota_batch_broke", exc_info=error)
        if self._waiting.count:
            self._launch_soon()

    def _take(self) -> list[Ask]:
        """Take tenants' asks, of those alone who were in somebody's way before.

        Of those who were in their own way it is one at a time, so that the others get on.
        """
        batch: list[Ask] = []
        out = self._busy | self._resting
        if self._busy & self._stuck:
            out |= self._stuck
        for tenant_id in list(self._waiting.by_tenant):
            if tenant_id in out or (batch and tenant_id in self._apart):
                continue
            taken = self._waiting.take(tenant_id, MAX_BATCH - len(batch))
            batch += [ask for ask in taken if self._is_worth_sending(ask)]
            if tenant_id in self._apart or len(batch) >= MAX_BATCH:
                break
        self._busy.update(ask.tenant_id for ask in batch)
        return batch

    def _is_worth_sending(self, ask: Ask) -> bool:
        is_late = asyncio.get_running_loop().time() >= ask.give_up_at
        if is_late or ask.is_abandoned:
            if is_late and not ask.future.done():
                log.warning("quota_call_given_up", op=ask.body["op"], is_unknown=ask.is_unknown)
            ask.fail(UnansweredError())
            return False
        return True

    async def _run(self, batch: Sequence[Ask]) -> None:
        tenants = {ask.tenant_id for ask in batch}
        try:
            await self._attempt(batch)
            if self._pause:
                await asyncio.sleep(self._pause)
        finally:
            self._busy -= tenants

    async def _attempt(self, batch: Sequence[Ask]) -> None:
        """Run a batch; if it is refused, its parts."""
        try:
            rows = await self._send(batch)
        except _LOST as exc:
            self._retry(batch, exc, is_outage=True)
        except asyncpg.PostgresError as exc:
            await self._part(batch, exc)
        else:
            self._pause = 0.0
            tenants = {ask.tenant_id for ask in batch}
            self._apart -= tenants
            self._stuck -= tenants
            answers = {row["n"]: row for row in rows}
            for n, ask in enumerate(batch):
                ask.answer(answers.get(n))

    async def _send(self, batch: Sequence[Ask]) -> list[asyncpg.Record]:
        parts: dict[TenantId, list[dict[str, object]]] = {}
        for n, ask in enumerate(batch):
            call = {**ask.body, "n": n, "again": ask.is_unknown}
            if ask.made is not None:
                call["made"] = ask.made.isoformat()
            parts.setdefault(ask.tenant_id, []).append(call)
        work = [{"tenant": str(tenant), "calls": calls} for tenant, calls in parts.items()]
        text = _spell(work)
        async with asyncio.timeout(ATTEMPT_SECONDS), self._database.acquire() as connection:
            try:
                return await connection.fetch(APPLY, text)
            except asyncpg.PostgresError as exc:
                if (exc.sqlstate or "08").startswith(_UNKNOWN):
                    _mark_unknown(batch)
                raise
            except BaseException:
                # Nobody may use a connection that is in the middle of something, nor wait for it.
                _mark_unknown(batch)
                connection.terminate()
                raise

    async def _part(self, batch: Sequence[Ask], error: asyncpg.PostgresError) -> None:
        state = error.sqlstate or "08"
        if state.startswith((*_UNKNOWN, *_OUTAGE)):
            self._retry(batch, error, is_outage=True)
        elif not state.startswith(_REFUSED):
            self._set_apart({ask.tenant_id for ask in batch}, state)
            self._retry(batch, error, is_outage=False)
        elif _misses_partition(error) and await self._make_partitions(batch):
            await self._attempt(batch)
        elif len(batch) > 1:
            middle = len(batch) // 2
            await self._attempt(batch[:middle])
            await self._attempt(batch[middle:])
        elif isinstance(error, asyncpg.UniqueViolationError) and not batch[0].is_unknown:
            # The same hold, sent before and not known to have arrived.
            _mark_unknown(batch)
            self._retry(batch, error, is_outage=False)
        else:
            log.error(
                "quota_call_refused",
                op=batch[0].body["op"],
                sqlstate=state,
                error=type(error).__name__,
            )
            batch[0].fail(error)

    def _set_apart(self, tenants: set[TenantId], state: str) -> None:
        """Whoever holds a lock for long holds up that tenant alone, once all are apart."""
        self._apart |= tenants
        if len(tenants) > 1 or state.startswith(_CONFLICT):
            return
        self._stuck |= tenants
        self._resting |= tenants
        asyncio.get_running_loop().call_later(TENANT_PAUSE_SECONDS, self._wake, tenants)

    def _wake(self, tenants: set[TenantId]) -> None:
        self._resting -= tenants
        if self._waiting.count:
            self._launch_soon()

    def _retry(self, batch: Iterable[Ask], error: Exception, *, is_outage: bool) -> None:
        """Send it again after a pause, for as long as each is worth it."""
        if is_outage:
            self._pause = min(max(2 * self._pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        log.warning("quota_batch_retried", error=type(error).__name__, is_outage=is_outage)
        for ask in batch:
            self._waiting.add(ask)

    async def _make_partitions(self, batch: Iterable[Ask]) -> bool:
        """Make the ledger's missing months; tell whether there were any it had not made before."""
        moments = {made.strftime("%Y-%m"): made for ask in batch if (made := ask.made) is not None}
        missing = moments.keys() - self._made_months
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS), self._database.acquire() as connection:
                for month in sorted(missing):
                    await connection.execute(ENSURE_PARTITION, moments[month])
        except (*_LOST, asyncpg.PostgresError) as exc:
            log.warning("usage_partition_not_made", error=type(exc).__name__)
            return False
        self._made_months |= missing
        return bool(missing)


def _spell(work: Sequence[Mapping[str, object]]) -> str:
    try:
        return to_json(work).decode()
    except PydanticSerializationError:
        # A lone surrogate. It is for the database to refuse the one call that has it.
        return json.dumps(work)


def _mark_unknown(batch: Iterable[Ask]) -> None:
    for ask in batch:
        ask.is_unknown = True


def _misses_partition(error: asyncpg.PostgresError) -> bool:
    return isinstance(error, asyncpg.CheckViolationError) and error.constraint_name is None
